"""The command `replicate`, on a real store; and a gateway on the copy."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI, lines
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.vault.stored_folder import FOLDER_ID

pytestmark = pytest.mark.store


@on_each_s3_server
def test_a_copy_is_a_store_of_its_own(
    run_cli: RunCLI, arguments: list[str], s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = arguments[:4]
    prefix = f"test-replicate-{uuid.uuid4().hex}"
    location = f"s3://{s3_server.bucket}/{prefix}"
    copy = ["--store", location, *arguments[2:]]
    with monkeypatch.context() as without_password:
        without_password.delenv("UNTRUSTED_S3_PASSWORD")
        outcome = run_cli("replicate", location, *store, "--only", FOLDER_ID)
        assert (outcome.exit_code, outcome.stdout) == (0, "")
        assert outcome.stderr.startswith("copied of 1 folder: 6 objects (")
        outcome = run_cli("replicate", location, *store, "--json")
        report = json.loads(outcome.stdout)
        # The other folder has a damaged object.
        assert (outcome.exit_code, report["ok"], report["folders"], len(report["failed"])) == (1, False, 2, 1)
        assert "differs from the checksum in the log" in outcome.stderr
    assert lines(run_cli, copy, "-lR") == lines(run_cli, arguments, "-lR")
    assert lines(run_cli, copy, "-R", "--as-of", "2023-11-14T22:30") != lines(run_cli, copy, "-R")
    outcome = run_cli("verify", *copy)
    assert (outcome.exit_code, outcome.stdout.endswith(": no damage\n")) == (0, True)
    with Gateway(tmp_path / "gateway", s3_server, prefix) as gateway:
        gateway.wait_folder(FOLDER_ID, files=4)


def test_what_is_refused(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli("replicate", arguments[1], *arguments[:4])
    assert outcome.exit_code == 2 and "the store itself" in outcome.stderr
    outcome = run_cli("replicate", f"{arguments[1]}-copy", *arguments[:4], "--to-profile", "nobody")
    assert outcome.exit_code == 2 and "profile 'nobody'" in outcome.stderr
    outcome = run_cli("replicate", f"{arguments[1]}-copy", *arguments[:4], "--only", "none")
    assert outcome.exit_code == 2 and "no folder 'none'" in outcome.stderr
