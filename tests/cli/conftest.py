"""A clean place and environment for command lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from tests.peers.s3_server import S3Server
from untrusted_s3.cli.main import main
from untrusted_s3.cli.options import ENVIRONMENT_PREFIX


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


RunCLI = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting, credential or file of the machine gets in, and no logging set up by a command stays."""
    for name in list(os.environ):
        if name.startswith((ENVIRONMENT_PREFIX, "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> RunCLI:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        exit_code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return run


@pytest.fixture
def store_arguments(s3_server: S3Server, bucket_prefix: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """--store and --endpoint-url of a real store; its credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    return ["--store", f"s3://{s3_server.bucket}/{bucket_prefix}", "--endpoint-url", s3_server.endpoint_url]
