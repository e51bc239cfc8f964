"""`compat` without a Syncthing program; tests/interop/test_compat.py tests it with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_program_is_asked_for(run_cli: RunCLI) -> None:
    outcome = run_cli("compat")
    assert outcome.exit_code == 2
    assert "--syncthing" in outcome.stderr


def test_no_such_program(run_cli: RunCLI, tmp_path: Path) -> None:
    for name in (tmp_path / "missing", tmp_path, "no-such-program-on-the-path"):
        outcome = run_cli("compat", "--syncthing", name)
        assert outcome.exit_code == 2
        assert outcome.stderr == f"error: --syncthing: there is no program {name}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "''"), ("echo sh version 1", "'sh version 1'"), ("echo oops >&2; exit 1", "'oops'")],
)
def test_another_program(run_cli: RunCLI, tmp_path: Path, text: str, said: str) -> None:
    program = script(tmp_path / "program", text)
    outcome = run_cli("compat", "--syncthing", program)
    assert outcome.exit_code == 2
    assert outcome.stderr == f"error: {program} is not Syncthing: --version says {said}\n"
    assert outcome.stdout == ""


def test_a_file_that_is_no_program(run_cli: RunCLI, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, or not")
    program.chmod(0o755)
    outcome = run_cli("compat", "--syncthing", program)
    assert outcome.exit_code == 2
    assert outcome.stderr == f"error: {program} cannot be run: Exec format error\n"


def test_a_time_limit_of_zero(run_cli: RunCLI) -> None:
    assert run_cli("compat", "--syncthing", "sh", "--time-limit", "0").exit_code == 2
