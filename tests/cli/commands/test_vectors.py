"""`vectors`: its output, its reports and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.waiting import PATIENCE
from untrusted_s3.vectors_check.cases import default_directory
from untrusted_s3.vectors_check.operations import OPERATIONS

QUICK = ("hchacha20", "block_token")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two of the files."""
    directory = tmp_path / "vectors"
    directory.mkdir()
    for operation in QUICK:
        (directory / f"{operation}.json").write_bytes((default_directory() / f"{operation}.json").read_bytes())
    return directory


def damage(directory: Path) -> None:
    """One wrong figure in one case."""
    path = directory / "hchacha20.json"
    document = json.loads(path.read_text())
    case = document["cases"][0]
    case["subkey"] = case["subkey"][:-1] + ("0" if case["subkey"][-1] != "0" else "1")
    path.write_text(json.dumps(document))


def test_all_of_this_installation(run_cli: RunCLI) -> None:
    outcome = run_cli("vectors")
    assert outcome.exit_code == 0, outcome.stdout
    lines = outcome.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["ok", operation] for operation in OPERATIONS]
    right, _, total = lines[-1].split()[:3]
    assert right == total
    assert int(total.replace(",", "")) > 800
    assert "miscreant" in lines[-1]
    assert outcome.stderr == ""


def test_json(run_cli: RunCLI, directory: Path) -> None:
    outcome = run_cli("vectors", "--vectors", directory, "--json")
    assert outcome.exit_code == 0
    document = json.loads(outcome.stdout)
    assert document["ok"] is True
    assert [group["operation"] for group in document["groups"]] == list(QUICK)
    for group in document["groups"]:
        assert len(group["implementations"]) == 2
        assert group["answers"] == 2 * group["cases"] > 2 * group["refusals"] > 0
        assert group["faults"] == []
    assert set(document["libraries"]) == {"cryptography", "miscreant", "PyNaCl"}


def test_a_mismatch(run_cli: RunCLI, directory: Path, tmp_path: Path) -> None:
    damage(directory)
    outcome = run_cli("vectors", "--vectors", directory, "--junit", tmp_path / "junit.xml")
    assert outcome.exit_code == 1
    first, mine, theirs, second, last = outcome.stdout.splitlines()
    assert first.startswith("FAIL  hchacha20")
    assert mine.startswith("      xchacha-2.2.1 [untrusted_s3]: subkey is")
    assert theirs.startswith("      xchacha-2.2.1 [plain Python]: subkey is")
    assert second.startswith("ok    block_token")
    assert "of" in last
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get("failures") for suite in suites] == ["2", "0"]

    outcome = run_cli("vectors", "--vectors", directory, "--json")
    assert outcome.exit_code == 1
    document = json.loads(outcome.stdout)
    assert document["ok"] is False
    assert [fault["case"] for fault in document["groups"][0]["faults"]] == ["xchacha-2.2.1"] * 2


def test_usage(run_cli: RunCLI, directory: Path, tmp_path: Path) -> None:
    assert run_cli("vectors", "--vectors", tmp_path / "missing").exit_code == 2
    (tmp_path / "empty").mkdir()
    outcome = run_cli("vectors", "--vectors", tmp_path / "empty")
    assert outcome.exit_code == 2
    assert "no vectors" in outcome.stderr
    outcome = run_cli("vectors", "--vectors", directory, "--junit", tmp_path / "missing" / "junit.xml")
    assert outcome.exit_code == 2
    assert "cannot be written" in outcome.stderr
    (directory / "extra.json").write_text("{}")
    outcome = run_cli("vectors", "--vectors", directory)
    assert outcome.exit_code == 2
    assert "extra.json is not a file of vectors" in outcome.stderr


@pytest.mark.parametrize("library", ["nacl.bindings", "miscreant.aes.siv"])
def test_without_the_other_libraries(
    run_cli: RunCLI, directory: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "untrusted_s3.vectors_check.second_opinion", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    outcome = run_cli("vectors", "--vectors", directory, "--json")
    assert outcome.exit_code == 0
    assert "no second opinion" in outcome.stderr
    assert "untrusted-s3[vectors]" in outcome.stderr
    assert [group["implementations"] for group in json.loads(outcome.stdout)["groups"]] == [["untrusted_s3"]] * 2


def test_other_commands_load_nothing_that_decrypts() -> None:
    """Neither does a configuration file, for which all of them are loaded."""
    program = """
import click, sys
from untrusted_s3.cli.main import cli
from untrusted_s3.cli.options import all_commands
assert len(list(all_commands(click.Context(cli)))) > 12
names = ("untrusted_s3.crypto", "untrusted_s3.vault", "untrusted_s3.vectors_check", "nacl")
print([name for name in sys.modules if name.startswith(names)])
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert found.stdout.strip() == "[]"
