"""`versions` on a store that our own encryption has filled."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import RunCLI

pytestmark = pytest.mark.store


def test_versions_are_listed(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli("versions", *arguments, "changed")
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["FROM", "SIZE", "MODIFIED"]
    assert [line.split()[2] for line in lines[1:]] == ["6", "6"]
    first, second = json.loads(run_cli("versions", *arguments, "/changed", "--json").stdout)
    assert first["path"] == second["path"] == "changed"
    assert first["from"] < second["from"] and not first["conflict"]
    assert run_cli("cat", *arguments, "changed", "--as-of", first["from"][:26] + "Z").stdout == "before"


def test_deletions_are_versions(run_cli: RunCLI, arguments: list[str]) -> None:
    lines = run_cli("versions", *arguments, "old").stdout.splitlines()
    assert len(lines) == 3 and lines[2].endswith("deleted")


def test_a_path_that_never_was(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli("versions", *arguments, "never")
    assert (outcome.exit_code, "no 'never' in the history" in outcome.stderr) == (2, True)
