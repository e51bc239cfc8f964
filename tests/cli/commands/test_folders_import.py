"""The command `folders import`, on a real store."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI, lines
from tests.peers.s3_server import on_each_s3_server
from tests.vault.stored_folder import FOLDER_ID

pytestmark = pytest.mark.store


@pytest.fixture
def disk(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> Path:
    """The disk of a native untrusted device, as `folders export` writes it."""
    assert run_cli("folders", "export", tmp_path / "disk", *arguments).exit_code == 0
    (tmp_path / "disk" / ".stfolder" / "untrusted-s3-export.json").unlink()
    return tmp_path / "disk"


@pytest.fixture
def empty(arguments: list[str]) -> list[str]:
    """--store of an empty prefix, and --endpoint-url."""
    return ["--store", f"{arguments[1].rsplit('/', 1)[0]}/test-import-{uuid.uuid4().hex}", *arguments[2:4]]


@on_each_s3_server
def test_a_folder_and_the_same_again(
    run_cli: RunCLI, arguments: list[str], empty: list[str], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_password:
        without_password.delenv("UNTRUSTED_S3_PASSWORD")
        outcome = run_cli("folders", "import", disk, *empty)
        assert (outcome.exit_code, outcome.stdout) == (0, "")
        assert outcome.stderr.startswith("imported 4 files (")
        outcome = run_cli("folders", "import", disk, *empty, "--json")
        report = json.loads(outcome.stdout)
        assert (report["ok"], report["folder"], report["files"], report["there"]) == (True, FOLDER_ID, 0, 4)
    listed = lines(run_cli, [*empty, "--folder", FOLDER_ID], "-R")
    assert {"changed", "sub:", "large"} <= set(listed) <= set(lines(run_cli, arguments, "-R"))
    outcome = run_cli("verify", *empty, "--folder", FOLDER_ID)
    assert (outcome.exit_code, outcome.stdout.endswith(": no damage\n")) == (0, True)


def test_what_is_refused(run_cli: RunCLI, empty: list[str], disk: Path, tmp_path: Path) -> None:
    (disk / "evil\x1b[2Jname").touch()
    outcome = run_cli("folders", "import", disk, *empty)
    assert outcome.exit_code == 1
    assert "not imported:\n  evil\\x1b[2Jname: a file whose name is not encrypted\n" in outcome.stderr
    assert "imported 4 files (" in outcome.stderr and ", 1 refused into the folder" in outcome.stderr
    outcome = run_cli("folders", "import", tmp_path, *empty)
    assert outcome.exit_code == 2 and "not the directory of a receive-encrypted folder" in outcome.stderr
