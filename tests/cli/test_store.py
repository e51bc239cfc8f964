"""Stores that a command cannot use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.cli.conftest import DEVICE, RunCLI, python_m
from tests.peers.s3_server import S3Server
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.store import records
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@pytest.mark.parametrize("url", ["bucket", "http://bucket", "s3://", "s3://Bucket", "s3://bucket/a b"])
def test_an_invalid_store_url(run_cli: RunCLI, url: str) -> None:
    outcome = run_cli("folders", "list", "--store", url)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1


def test_no_credentials(run_cli: RunCLI) -> None:
    outcome = run_cli("folders", "list", "--store", "s3://bucket", "--endpoint-url", "http://127.0.0.1:9")
    assert outcome.exit_code == 3 and "AWS_ACCESS_KEY_ID" in outcome.stderr


@pytest.mark.usefixtures("credentials")
def test_an_invalid_endpoint_url(run_cli: RunCLI) -> None:
    outcome = run_cli("folders", "list", "--store", "s3://bucket", "--endpoint-url", "nonsense")
    assert outcome.exit_code == 2 and "--endpoint-url" in outcome.stderr


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("command", [["folders", "list"], ["doctor"], ["serve", "--http", "none"]])
def test_a_store_that_cannot_be_reached(run_cli: RunCLI, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses between tries
    outcome = run_cli(*command, "--store", "s3://bucket", "--endpoint-url", "http://127.0.0.1:9")
    assert outcome.exit_code == 3 and "cannot be reached" in outcome.stdout + outcome.stderr


@pytest.mark.usefixtures("credentials")
def test_a_clock_one_hour_ahead(run_cli: RunCLI) -> None:
    def answer(request: Request) -> Answer:
        return Answer(date=format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True))

    with http_server(answer) as url:
        outcome = run_cli("serve", "--store", "s3://bucket", "--endpoint-url", url, "--http", "none")
    assert outcome.exit_code == 3 and "clock" in outcome.stderr and "60 minutes ahead" in outcome.stderr


@pytest.mark.store
def test_a_missing_bucket(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("folders", "list", *store_arguments, "--store", "s3://no-such-bucket")
    assert outcome.exit_code == 3 and "--create-bucket" in outcome.stderr


@pytest.mark.store
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials(
    run_cli: RunCLI, store_arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "wrong")
    outcome = run_cli("folders", "list", *store_arguments)
    assert outcome.exit_code == 3 and "credentials" in outcome.stderr


@pytest.mark.store
async def test_a_store_of_another_format(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    await records.write_record(bucket, "store.json", {"format": "other"})
    await bucket.close()
    for command in (["folders", "list"], ["peers", "list"], ["peers", "add", DEVICE]):
        result = python_m(*command, *store_arguments)
        assert result.returncode == 1 and "another bucket or prefix" in result.stderr


@pytest.mark.parametrize(
    "command",
    [["peers", "list"], ["peers", "add", DEVICE], ["peers", "remove", DEVICE], ["folders", "list"], ["doctor"]],
    ids=lambda command: " ".join(map(str, command[:2])),
)
def test_a_command_in_another_directory_makes_no_new_store(
    run_cli: RunCLI, command: list[object], tmp_path: Path
) -> None:
    outcome = run_cli(*command)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "there is no store in data/seaweedfs" in outcome.stderr and "--data" in outcome.stderr
    assert not (tmp_path / "data").exists()


class WithoutConditions:
    """A store that answers 501 to conditions, as Backblaze B2 does."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def __call__(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        key = path.removeprefix("/bucket").lstrip("/")
        if "If-None-Match" in request.headers:
            return Answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        if request.method == "PUT":
            self.objects[key] = request.body
            return Answer(headers={"ETag": '"1"'})
        if not key:
            return Answer(body=b"<ListBucketResult></ListBucketResult>" if "list-type" in query else b"")
        if key not in self.objects:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>" if request.method == "GET" else b"")
        return Answer(body=self.objects[key])


@pytest.mark.usefixtures("credentials")
def test_with_single_writer_nothing_is_written_on_conditions(run_cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("a passphrase")
    sealed = ["--identity-name", "gateway", "--identity-passphrase-file", str(tmp_path / "passphrase")]
    store = WithoutConditions()
    with http_server(store) as url:
        options = ["--store", "s3://bucket", "--endpoint-url", url]
        for command in (["peers", "add", str(DEVICE)], ["id", *sealed]):
            outcome = run_cli(*command, *options)
            assert outcome.exit_code == 3 and "--single-writer" in outcome.stderr
            assert run_cli(*command, *options, "--single-writer").exit_code == 0
        assert run_cli("id", *sealed, *options).exit_code == 0
    assert {key.split("/")[0] for key in store.objects} == {"store.json", "peers", "identities"}
