"""SeaweedFS as a child process: where its program is, and whether it answers."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from untrusted_s3.errors import EmbeddedStoreMissing
from untrusted_s3.store.embedded.files import Credentials
from untrusted_s3.store.embedded.process import answers, find_weed
from untrusted_s3.store.embedded.server import EmbeddedStore


def test_a_missing_program_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedStoreMissing, match="weed"):
        EmbeddedStore.start(tmp_path / "data")
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_weed() == program


@pytest.mark.store
def test_a_server_answers_to_its_own_credentials_only(seaweedfs: EmbeddedStore) -> None:
    port = int(seaweedfs.endpoint_url.rpartition(":")[2])
    assert answers(port, Credentials(seaweedfs.access_key, seaweedfs.secret_key))
    assert not answers(port, Credentials(seaweedfs.access_key, "wrong"))


def test_nobody_answers_on_a_closed_port() -> None:
    assert not answers(1, Credentials("access", "secret"))
