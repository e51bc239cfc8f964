"""The command `folders export`, on a real store that our own encryption has filled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI

pytestmark = pytest.mark.store


@pytest.fixture(autouse=True)
def _no_password(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """None is needed."""
    monkeypatch.delenv("UNTRUSTED_S3_PASSWORD")


def exported(directory: Path) -> int:
    return sum(path.is_file() and ".stfolder" not in path.parts for path in directory.rglob("*"))


def test_a_folder_and_the_same_again(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "copy"
    outcome = run_cli("folders", "export", target, *arguments)
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr.startswith("exported 4 files (")
    assert exported(target) == 4
    outcome = run_cli("folders", "export", target, *arguments, "--json")
    report = json.loads(outcome.stdout)
    assert (report["ok"], report["files"], report["there"], report["failed"]) == (True, 0, 4, [])


def test_as_of(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> None:
    outcome = run_cli("folders", "export", tmp_path / "copy", *arguments, "--as-of", "2023-11-14T22:30")
    assert outcome.exit_code == 0 and exported(tmp_path / "copy") == 2
    outcome = run_cli("folders", "export", tmp_path / "copy", *arguments, "--as-of", "2001-01-01")
    assert outcome.exit_code == 2 and "history" in outcome.stderr


def test_damage_is_listed(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> None:
    outcome = run_cli("folders", "export", tmp_path / "copy", *arguments, "--folder", "another folder")
    assert outcome.exit_code == 1 and "differs from the checksum in the log" in outcome.stderr
    assert "1 not exported" in outcome.stderr


def test_a_directory_in_use_is_refused(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    outcome = run_cli("folders", "export", tmp_path, *arguments)
    assert outcome.exit_code == 2 and "choose another one" in outcome.stderr
    outcome = run_cli("folders", "export", tmp_path / "new", *arguments[:-2])
    assert outcome.exit_code == 2 and "--folder" in outcome.stderr
