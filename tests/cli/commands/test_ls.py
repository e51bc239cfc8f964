"""`ls` on a store that our own encryption has filled."""

from __future__ import annotations

import json
import os
import pty
import sys
from datetime import UTC

import pytest

from tests.cli.conftest import RunCLI, lines
from tests.cli.filled_folder import LARGE, NEVER_NS
from tests.vault.stored_folder import PASSWORD
from untrusted_s3.cli.commands.ls import human_size, iso_text, time_text
from untrusted_s3.units import KIB

pytestmark = pytest.mark.store


def test_ls_of_the_folder_a_directory_and_a_file(run_cli: RunCLI, arguments: list[str]) -> None:
    assert lines(run_cli, arguments) == ["changed", "evil\\x1b[2Jname", "sub"]
    assert lines(run_cli, arguments, "sub/") == ["empty", "large", "link", "x[1]"]
    assert lines(run_cli, arguments, "./sub/large") == ["sub/large"]
    assert lines(run_cli, arguments, "sub/link") == ["sub/link"]
    assert lines(run_cli, arguments, "/") == lines(run_cli, arguments)


def test_ls_recursive_and_with_what_was_deleted(run_cli: RunCLI, arguments: list[str]) -> None:
    top = ["changed", "evil\\x1b[2Jname"]
    below = ["", "sub:", "empty", "large", "link", "x[1]"]
    assert lines(run_cli, arguments, "-R") == [".:", *top, "sub", *below]
    assert lines(run_cli, arguments, "-R", "--deleted") == [".:", *top, "old", "sub", *below]
    assert lines(run_cli, arguments, "changed", "sub") == ["changed", *below]


def test_ls_long(run_cli: RunCLI, arguments: list[str]) -> None:
    when = "2026-11-01 12:34"
    assert lines(run_cli, arguments, "-l", "sub") == [
        "drwxr-xr-x            0 2023-11-14 22:13 empty",
        f"-rw-------       716800 {when} large",
        f"lrwxrwxrwx           10 {when} link -> ../changed",
        "-rw-r--r--            0 ????-??-?? ??:?? x[1]",
    ]
    assert lines(run_cli, arguments, "-lh", "sub/large") == [f"-rw-------  700K {when} sub/large"]
    assert lines(run_cli, arguments, "-l", "--deleted", "old")[0].endswith(" old (deleted)")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("sub/l*", ["sub/large", "sub/link"]),
        ("sub/l?nk", ["sub/link"]),
        ("**/l[!i]*", ["sub/large"]),
        ("c*", ["changed"]),
        ("s*", ["empty", "large", "link", "x[1]"]),
        ("sub/x[1]", ["sub/x[1]"]),
    ],
)
def test_ls_of_globs(run_cli: RunCLI, arguments: list[str], glob: str, expected: list[str]) -> None:
    assert lines(run_cli, arguments, glob) == expected


@pytest.mark.parametrize("path", ["never", "sub/never", "n*", "old"])
def test_ls_of_missing_paths(run_cli: RunCLI, arguments: list[str], path: str) -> None:
    outcome = run_cli("ls", *arguments, path, "sub/large")
    assert (outcome.exit_code, outcome.stdout) == (2, "sub/large\n")
    assert f"there is no '{path}'" in outcome.stderr


def test_ls_json(run_cli: RunCLI, arguments: list[str]) -> None:
    found = {entry["path"]: entry for entry in map(json.loads, lines(run_cli, arguments, "-R", "--json", "--deleted"))}
    assert list(found) == ["changed", "evil\x1b[2Jname", "old", "sub", "sub/empty", "sub/large", "sub/link", "sub/x[1]"]
    modified = "2026-11-01T12:34:56.000000007Z"
    assert found["sub/large"] == {
        "path": "sub/large",
        "kind": "file",
        "size": len(LARGE),
        "mode": "0600",
        "modified": modified,
    }
    assert found["sub/link"] == {
        "path": "sub/link",
        "kind": "symlink",
        "size": 10,
        "mode": None,
        "modified": modified,
        "target": "../changed",
    }
    assert found["old"]["deleted"] is True
    assert found["sub/x[1]"]["modified"] is None


def test_damage_is_listed_and_does_not_stop_the_rest(run_cli: RunCLI, arguments: list[str]) -> None:
    arguments[-1] = "another folder"
    outcome = run_cli("ls", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (1, "bad\nsound\n")
    liar, escape = outcome.stderr.splitlines()
    assert liar.startswith("damaged: 'liar' (") and ".syncthing-enc/" in liar and "another version" in liar
    assert escape.startswith("damaged: '../escape' (") and "harmless" in escape
    outcome = run_cli("ls", *arguments, "--json")
    assert outcome.exit_code == 1 and outcome.stderr == ""
    damaged = [entry for entry in map(json.loads, outcome.stdout.splitlines()) if "damaged" in entry]
    assert [entry["path"] for entry in damaged] == ["liar", "../escape"]
    assert all(entry["encrypted_name"] for entry in damaged)


def on_a_terminal(*arguments: str, typed: bytes = b"") -> tuple[int, bytes]:
    """Runs a command on a terminal of its own: its exit code and all that it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "untrusted_s3", *arguments])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if typed and b": " in shown:
            os.write(terminal, typed)
            typed = b""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_names_cannot_control_the_terminal_and_the_password_is_not_shown(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNTRUSTED_S3_PASSWORD")
    exit_code, shown = on_a_terminal("ls", *arguments, "-l", typed=PASSWORD.encode() + b"\n")
    assert exit_code == 0, shown
    assert b"evil\\x1b[2Jname" in shown and b"\x1b[2J" not in shown
    assert b"Password of the folder 'folder': " in shown and PASSWORD.encode() not in shown


def test_sizes_for_humans() -> None:
    sizes = [0, 1023, 1024, 1025, 10 * KIB - 1, 10 * KIB, 1023 * KIB, 1023 * KIB + 1, 5 << 40]
    assert [human_size(size) for size in sizes] == ["0", "1023", "1.0K", "1.1K", "10K", "10K", "1023K", "1.0M", "5.0T"]
    assert human_size(2**200) == str(2**200)


def test_times() -> None:
    assert iso_text(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_text(NEVER_NS) is None
    assert time_text(-1, UTC) == "1969-12-31 23:59"
    for never in (NEVER_NS, -NEVER_NS, -(10**9) * 62135596800):
        assert len(time_text(never)) == len("1969-12-31 23:59")
