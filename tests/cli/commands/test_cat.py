"""`cat` on a store that our own encryption has filled."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import RunCLI
from tests.cli.filled_folder import LARGE
from tests.vault.stored_folder import random_bytes
from tests.waiting import PATIENCE
from untrusted_s3.cli.commands.cat import find_range
from untrusted_s3.units import KIB

pytestmark = pytest.mark.store


def run_cli_bytes(arguments: list[str], *more: str) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments, *more]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    assert done.stderr == b""
    return done.returncode, done.stdout


def test_cat_writes_the_bytes(arguments: list[str]) -> None:
    for path, expected in (("sub/large", LARGE), ("/sub/x[1]", b"")):
        assert run_cli_bytes(arguments, path) == (0, expected)


def test_cat_of_a_range(run_cli: RunCLI, arguments: list[str]) -> None:
    assert run_cli("cat", *arguments, "changed", "--range", "1-3").stdout == "fte"
    assert run_cli("cat", *arguments, "changed", "--range", "-1").stdout == "!"
    assert run_cli("cat", *arguments, "changed", "--range", "9-20").stdout == ""
    for wrong in ("-", "1", "a-b", "1-2-3"):
        outcome = run_cli("cat", *arguments, "changed", "--range", wrong)
        assert outcome.exit_code == 2 and "--range" in outcome.stderr


@pytest.mark.parametrize(
    ("path", "reason"),
    [("never", "there is no"), ("sub", "a directory"), ("sub/link", "a symlink"), ("old", "deleted"), ("", "no ''")],
)
def test_cat_of_paths_without_content(run_cli: RunCLI, arguments: list[str], path: str, reason: str) -> None:
    outcome = run_cli("cat", *arguments, path)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert reason in outcome.stderr


def test_cat_of_damage_ends_before_it(arguments: list[str]) -> None:
    arguments[-1] = "another folder"
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments]
    done = subprocess.run([*command, "bad"], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1 and b"'bad' is damaged at byte 131072" in done.stderr
    assert done.stdout == random_bytes(300 * KIB)[: 128 * KIB]
    done = subprocess.run([*command, "liar"], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1 and b"'liar' is damaged" in done.stderr and done.stdout == b""


def test_cat_into_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments, "sub/large"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10) == LARGE[:10]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(PATIENCE) == 141


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        ("0-0", (0, 1)),
        ("5-9", (5, 10)),
        ("5-", (5, 100)),
        ("-5", (95, 100)),
        ("-500", (0, 100)),
        ("90-500", (90, 100)),
        ("200-300", (200, 100)),
        (None, (0, 100)),
    ],
)
def test_ranges(byte_range: str | None, expected: tuple[int, int]) -> None:
    assert find_range(byte_range, 100) == expected
