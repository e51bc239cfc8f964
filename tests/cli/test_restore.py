"""`restore` and `verify` as a user meets them: output, exit codes, and nothing written to the store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, random_bytes, stored_folder
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import KIB

pytestmark = pytest.mark.store
DATA = random_bytes(300 * KIB)
KEYS = FolderKeys.of(FOLDER_ID)


@pytest.fixture
def store(store_arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a store; the password is in the environment."""
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", PASSWORD)
    return store_arguments


def in_store(store: list[str], act: Callable[[S3Bucket], Awaitable[None]]) -> None:
    """Does something with the bucket."""

    async def run() -> None:
        bucket = await S3Bucket.open(StoreLocation.parse(store[1]), store[3])
        try:
            await act(bucket)
        finally:
            await bucket.close()

    asyncio.run(run())


@pytest.fixture
def filled(store: list[str], tmp_path: Path) -> list[str]:
    """The options of a store with a folder in it."""

    async def fill(bucket: S3Bucket) -> None:
        folder: StoredFolder = await stored_folder(bucket, tmp_path)
        await folder.append(
            folder.directory("docs"),
            await folder.file("docs/letter.txt", b"Dear reader"),
            await folder.file("docs/\x1b[2J", DATA),
            await folder.file("top", b"1"),
            folder.symlink("link", "docs"),
        )

    in_store(store, fill)
    return store


def flip(store: list[str], path: str, offset: int) -> None:
    """Changes one bit of the object of a file."""

    async def act(bucket: S3Bucket) -> None:
        async for item in bucket.list(KEYS.objects_of(_encrypted_name(path))):
            body = bytearray(await bucket.get(item.key))
            body[offset] ^= 1
            await bucket.put(item.key, [bytes(body)])
            return
        raise AssertionError(f"no object of {path}")

    in_store(store, act)


def _encrypted_name(path: str) -> str:
    from tests.vault.stored_folder import derive

    return derive(PASSWORD, FOLDER_ID).encrypt_name(path)


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


def test_restore_names_what_is_damaged_or_in_the_way(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
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


def test_a_wrong_password_is_no_damage(
    filled: list[str], run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", "another")
    for arguments in (["restore", tmp_path / "target"], ["verify"]):
        done = run_cli(*arguments, *filled)
        assert (done.exit_code, done.stdout) == (4, "")
        assert "wrong password" in done.stderr
    assert not (tmp_path / "target").exists()


def test_a_target_that_cannot_be_is_said_to_be(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_cli("restore", tmp_path / "file", *filled)
    assert done.exit_code == 2
    assert "nothing can be restored to" in done.stderr


def test_verify_of_a_sound_folder(filled: list[str], run_cli: RunCLI) -> None:
    done = run_cli("verify", *filled)
    assert done.exit_code == 0
    assert done.stdout.startswith("verified 3 files (30") and done.stdout.endswith("no damage\n")
    report = json.loads(run_cli("verify", *filled, "--json").stdout)
    assert (report["ok"], report["files"], report["others"], report["damaged"], report["log"]) == (True, 3, 2, [], [])


def test_verify_names_damage(filled: list[str], run_cli: RunCLI) -> None:
    flip(filled, "docs/letter.txt", 3)
    flip(filled, "top", -1)
    done = run_cli("verify", *filled)
    assert done.exit_code == 1
    assert "  docs/letter.txt: its block at 0 is damaged" in done.stderr
    assert "  top: the trailer of its object states another length" in done.stderr
    assert done.stdout.endswith("2 problems\n")
    assert run_cli("verify", *filled, "--path", "docs/?[[]*").exit_code == 0


def test_verify_names_a_damaged_segment_even_where_it_hides_the_files(filled: list[str], run_cli: RunCLI) -> None:
    async def damage(bucket: S3Bucket) -> None:
        body = bytearray(await bucket.get(KEYS.segment(1)))
        body[50] ^= 1
        await bucket.put(KEYS.segment(1), [bytes(body)])

    in_store(filled, damage)
    done = run_cli("verify", *filled)
    assert done.exit_code == 1
    assert f"  {KEYS.segment(1)}: " in done.stderr
    assert "too damaged" in done.stderr
    report = json.loads(run_cli("verify", *filled, "--json").stdout)
    assert not report["ok"]
    assert [problem["path"] for problem in report["log"]] == [KEYS.segment(1)]


def test_verify_of_a_sample_tells_its_seed(filled: list[str], run_cli: RunCLI) -> None:
    report = json.loads(run_cli("verify", *filled, "--sample", "1%", "--json").stdout)
    assert report["files"] == 1
    again = json.loads(run_cli("verify", *filled, "--sample", "1", "--seed", report["seed"], "--json").stdout)
    assert again["bytes"] == report["bytes"]
    for wrong in ("0%", "101%", "some", "nan"):
        assert run_cli("verify", *filled, "--sample", wrong).exit_code == 2


def test_nothing_is_written_to_the_store(filled: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    contents: list[dict[str, int]] = []

    async def look(bucket: S3Bucket) -> None:
        contents.append({item.key: item.size async for item in bucket.list("")})

    in_store(filled, look)
    run_cli("restore", tmp_path / "target", *filled)
    run_cli("verify", *filled)
    in_store(filled, look)
    assert contents[0] == contents[1]
