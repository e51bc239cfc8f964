"""A clean directory and environment for command lines, and stores for them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.cli.filled_folder import fill_folders
from tests.peers.s3_server import S3Server
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, derive
from tests.waiting import PATIENCE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.main import main
from untrusted_s3.cli.options import ENVIRONMENT_PREFIX
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.settings import Settings
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


RunCLI = Callable[..., Outcome]

DEVICE = DeviceID(bytes(range(32)))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep settings, credentials and files of this machine out; undo the logging that a command sets up."""
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
def settings() -> Settings:
    """The settings of `run_cli`."""
    return Settings()


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str], settings: Settings) -> RunCLI:
    """Run a command line in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        exit_code = main([str(argument) for argument in arguments], settings)
        captured = capsys.readouterr()
        return Outcome(exit_code, captured.out, captured.err)

    return run


@pytest.fixture
def store_arguments(s3_server: S3Server, bucket_prefix: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """--store and --endpoint-url of a real store; its credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    return ["--store", f"s3://{s3_server.bucket}/{bucket_prefix}", "--endpoint-url", s3_server.endpoint_url]


def python_m(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line in a child process."""
    command = [sys.executable, "-m", "untrusted_s3", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set credentials that no store knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture(scope="session")
def filled_prefix(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The prefix of a store with two folders."""
    prefix = f"test-key-holder-{uuid.uuid4().hex}"

    async def fill() -> None:
        credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
        location = StoreLocation(s3_server.bucket, prefix + "/")
        bucket = await S3Bucket.open(location, s3_server.endpoint_url, credentials)
        try:
            await fill_folders(bucket, tmp_path_factory.mktemp("filling"))
        finally:
            await bucket.close()

    asyncio.run(fill())
    return prefix


@pytest.fixture
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password of `filled_folder`, in the environment; and its key without the time that scrypt takes."""
    monkeypatch.setattr(FolderKey, "derive", derive)
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", PASSWORD)
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def arguments(filled_prefix: str, s3_server: S3Server, _password: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """--store, --endpoint-url and --folder; credentials and password are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    store = ["--store", f"s3://{s3_server.bucket}/{filled_prefix}", "--endpoint-url", s3_server.endpoint_url]
    return [*store, "--folder", FOLDER_ID]


def lines(run_cli: RunCLI, arguments: list[str], *more: str) -> list[str]:
    """Return the lines that `ls` prints; it must succeed."""
    outcome = run_cli("ls", *arguments, *more)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    return outcome.stdout.splitlines()
