"""`restore`: output and exit codes; and that it and `verify` write nothing to the store."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.cli.commands.conftest import DATA, flip, in_store
from tests.cli.conftest import RunCLI
from untrusted_s3.restore.target import Target
from untrusted_s3.store.s3 import S3Bucket

pytestmark = pytest.mark.store


def test_restore_says_what_it_did_on_standard_error(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = run_cli("restore", target, *filled)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "restored 3 files (300 KiB), 1 symlink"
    assert (target / "docs/letter.txt").read_bytes() == b"Dear reader"
    assert (target / "docs/\x1b[2J").read_bytes() == DATA
    assert (target / "link").readlink() == Path("docs")
    again = run_cli("restore", target, *filled)
    assert again.stderr.splitlines()[-1] == "restored 0 files (0 B), 0 symlinks, 4 there already"


def test_restore_names_damaged_and_occupied_paths(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "top").write_bytes(b"mine")
    flip(filled, "docs/\x1b[2J", 1000)
    done = run_cli("restore", target, *filled)
    assert done.exit_code == 1
    assert "  docs/\\x1b[2J: " in done.stderr and "\x1b[2J" not in done.stderr
    assert "  top: something else is there (--overwrite replaces files and symlinks)" in done.stderr
    assert done.stderr.splitlines()[-1] == "restored 1 file (11 B), 1 symlink, 2 not restored"
    assert (target / "top").read_bytes() == b"mine"
    report = json.loads(run_cli("restore", target, *filled, "--overwrite", "--json").stdout)
    assert not report["ok"]
    assert [problem["path"] for problem in report["failed"]] == ["docs/\x1b[2J"]
    assert (report["files"], report["there"]) == (1, 2)
    assert (target / "top").read_bytes() == b"1"


def test_restore_of_a_part_and_dry(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    listed = run_cli("restore", tmp_path / "target", *filled, "--dry-run")
    assert sorted(listed.stdout.splitlines()) == ["docs/\\x1b[2J", "docs/letter.txt", "link", "top"]
    assert not (tmp_path / "target").exists()
    assert run_cli("restore", tmp_path / "target", *filled, "--path", "d*/*.txt").exit_code == 0
    assert [path.name for path in (tmp_path / "target").rglob("*") if path.is_file()] == ["letter.txt"]
    missed = run_cli("restore", tmp_path / "target", *filled, "--path", "nothing")
    assert (missed.exit_code, missed.stderr.splitlines()[-1]) == (2, "error: the folder has nothing under that path")


def test_a_wrong_password_is_not_damage(
    filled: list[str], run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", "another")
    for arguments in (["restore", tmp_path / "target"], ["verify"]):
        done = run_cli(*arguments, *filled)
        assert (done.exit_code, done.stdout) == (4, "")
        assert "wrong password" in done.stderr
    assert not (tmp_path / "target").exists()


def test_an_unusable_target(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_cli("restore", tmp_path / "file", *filled)
    assert done.exit_code == 2
    assert "nothing can be restored to" in done.stderr


def test_nothing_is_written_to_the_store(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    contents: list[dict[str, int]] = []

    async def look(bucket: S3Bucket) -> None:
        contents.append({item.key: item.size async for item in bucket.list("")})

    in_store(filled, look)
    run_cli("restore", tmp_path / "target", *filled)
    run_cli("verify", *filled)
    in_store(filled, look)
    assert contents[0] == contents[1]


def test_a_target_without_room_is_told_before(
    filled: list[str], run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "free_bytes", lambda self: 1024)
    # The disk of a target that does not exist is not known.
    assert "warning" not in run_cli("restore", tmp_path / "target", "--dry-run", *filled).stderr
    done = run_cli("restore", tmp_path / "target", *filled)
    assert done.exit_code == 0
    assert "warning: the selection has 30" in done.stderr and "the target has room for 1.0 KiB" in done.stderr
    monkeypatch.setattr(Target, "free_bytes", lambda self: None)
    assert "warning" not in run_cli("restore", tmp_path / "target", *filled).stderr


def test_a_full_disk_takes_two_lines(
    filled: list[str], run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", full)
    done = run_cli("restore", tmp_path / "target", *filled)
    assert done.exit_code == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "not restored",
        done.stderr.splitlines()[1].split(":")[0],
        "the disk is full",
        "restored 0 files (0 B), 0 symlinks, 4 not restored",
    ]
    assert json.loads(run_cli("restore", tmp_path / "target", *filled, "--json").stdout)["not_tried"] == 3
