"""`ls`, `cat`, `restore` and `verify` of a folder with conflicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.vault.conflicting import GONE_COPY, REPORT_COPY

pytestmark = pytest.mark.store

TOLD = "2 other versions of files are in conflict with the one that wins: "


def test_ls(disputed: list[str], run_cli: RunCLI) -> None:
    done = run_cli("ls", *disputed)
    assert (done.exit_code, done.stdout.splitlines()) == (0, ["back.txt", "docs", "old.txt", "plain.txt"])
    assert done.stderr == TOLD + "--conflicts lists them\n"
    done = run_cli("ls", *disputed, "-R", "--conflicts")
    copy = REPORT_COPY.removeprefix("docs/")
    top = ["back.txt", "docs", GONE_COPY, "old.txt", "plain.txt"]
    assert done.stdout.splitlines() == [".:", *top, "", "docs:", copy, "report.txt"]
    assert done.stderr == ""
    done = run_cli("ls", *disputed, "-l", "--conflicts", "docs/report.txt")
    assert [line.split(" ", 1)[0] for line in done.stdout.splitlines()] == ["-rw-r--r--"] * 2
    assert done.stdout.endswith(f"{REPORT_COPY} (conflict)\n")
    for path in ("gone.txt", "gone*", GONE_COPY):
        assert run_cli("ls", *disputed, "--conflicts", path).stdout == GONE_COPY + "\n"
    assert run_cli("ls", *disputed, "gone.txt").exit_code == 2


def test_ls_json(disputed: list[str], run_cli: RunCLI) -> None:
    listed = run_cli("ls", *disputed, "-R", "--json", "--conflicts").stdout.splitlines()
    entries = {entry["path"]: entry for entry in map(json.loads, listed)}
    assert entries["docs/report.txt"]["conflicts"] == 1
    assert {path: entry["conflict_of"] for path, entry in entries.items() if "conflict_of" in entry} == {
        REPORT_COPY: "docs/report.txt",
        GONE_COPY: "gone.txt",
    }


def test_cat(disputed: list[str], run_cli: RunCLI) -> None:
    done = run_cli("cat", *disputed, "docs/report.txt")
    assert done.stdout == "of A, newer"
    told = "1 other version of a file is in conflict with the one that wins: ls --conflicts lists them\n"
    assert done.stderr == told
    done = run_cli("cat", *disputed, REPORT_COPY)
    assert (done.stdout, done.stderr) == ("of B", "")


def test_restore(disputed: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = run_cli("restore", target, *disputed)
    assert done.exit_code == 0
    assert done.stderr.splitlines()[-2:] == [
        "restored 4 files (26 B), 0 symlinks, 2 conflicts",
        TOLD + "--conflicts restores them too",
    ]
    assert (target / "docs/report.txt").read_bytes() == b"of A, newer"
    done = run_cli("restore", target, *disputed, "--conflicts", "--json", "--path", "docs")
    report = json.loads(done.stdout)
    assert (report["conflicts"], report["files"], report["there"]) == (1, 1, 1)
    assert "conflict with" not in done.stderr
    assert (target / REPORT_COPY).read_bytes() == b"of B"


def test_verify(disputed: list[str], run_cli: RunCLI) -> None:
    done = run_cli("verify", *disputed)
    assert done.exit_code == 0 and ", 3 of them other versions," in done.stdout
    report = json.loads(run_cli("verify", *disputed, "--json").stdout)
    assert (report["files"], report["other_versions"]) == (7, 3)
