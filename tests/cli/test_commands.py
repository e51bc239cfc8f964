"""The commands, as a user meets them: results on standard output, all else on standard error, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3 import __version__
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.commands import folders as folders_module
from untrusted_s3.cli.output import size_text
from untrusted_s3.errors import BROKEN_PIPE, INTERRUPTED
from untrusted_s3.store import layout, records
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.s3 import S3Bucket

DEVICE = DeviceID(bytes(range(32)))
STATUS = {
    "device_id": str(DEVICE),
    "version": "9.9",
    "store": "s3://bucket",
    "folders": [
        {
            "id": "photos",
            "label": "Ph\x1b[2Jotos",
            "files": 12345,
            "directories": 3,
            "deleted": 0,
            "bytes": 5 << 30,
            "sequence": 9,
            "pending_files": 2,
            "pending_bytes": 2048,
            "state": "syncing",
            "error": None,
        }
    ],
    "peers": [
        {
            "device_id": str(DEVICE),
            "name": "laptop",
            "connected": True,
            "address": "127.0.0.1:1",
            "client": "syncthing v1",
            "error": None,
        }
    ],
    "unknown_devices": [{"device_id": str(DEVICE), "name": "new", "address": "127.0.0.1:2", "last_seen": "now"}],
}


def python_m(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "untrusted_s3", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


# The program itself


def test_the_version(run_cli: RunCLI) -> None:
    outcome = run_cli("--version")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, f"untrusted-s3 {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["peers"], ["nonsense"], ["serve", "--nonsense"], ["peers", "add"], ["id", "x"]]
)
def test_usage_mistakes(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "--help" in outcome.stderr


def test_a_fault_of_our_own_leaves_a_traceback_in_a_file(
    run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("http://h/k?X-Amz-Signature=feed")

    monkeypatch.setattr(folders_module, "_list", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run_cli("folders", "list")
    assert outcome.exit_code == 1 and outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1 and "KeyError" in outcome.stderr and "Traceback" not in outcome.stderr
    (log,) = tmp_path.glob("untrusted-s3-*.log")
    assert str(log) in outcome.stderr
    assert "Traceback" in log.read_text()
    debug = run_cli("folders", "list", "--debug")
    assert debug.exit_code == 1 and "Traceback" in debug.stderr
    assert "feed" not in outcome.stderr + debug.stderr + log.read_text()
    assert len(list(tmp_path.glob("untrusted-s3-*.log"))) == 1


def test_an_interruption(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders_module, "_list", interrupt)
    assert run_cli("folders", "list").exit_code == INTERRUPTED


def test_nobody_reads_the_output() -> None:
    command = [sys.executable, "-m", "untrusted_s3", "id"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == BROKEN_PIPE


# id


def test_id_prints_the_id_alone(run_cli: RunCLI) -> None:
    first = run_cli("id")
    assert first.exit_code == 0 and first.stderr == ""
    assert str(DeviceID.parse(first.stdout)) + "\n" == first.stdout
    assert run_cli("id", "--data", "data") == first
    assert run_cli("id", "--identity", "data/identity") == first
    assert run_cli("id", "--data", "elsewhere") != first


def test_the_qr_code_does_not_get_between(run_cli: RunCLI) -> None:
    plain, outcome = run_cli("id"), run_cli("id", "--qr")
    assert outcome.stdout == plain.stdout
    assert "█" in outcome.stderr


def test_half_an_identity(run_cli: RunCLI) -> None:
    run_cli("id")
    Path("data/identity/key.pem").unlink()
    outcome = run_cli("id")
    assert outcome.exit_code == 2 and "key.pem" in outcome.stderr


# Stores that cannot be used


@pytest.mark.parametrize("url", ["bucket", "http://bucket", "s3://", "s3://Bucket", "s3://bucket/a b"])
def test_a_store_url_that_is_none(run_cli: RunCLI, url: str) -> None:
    outcome = run_cli("folders", "list", "--store", url)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_no_credentials(run_cli: RunCLI) -> None:
    outcome = run_cli("folders", "list", "--store", "s3://bucket", "--endpoint-url", "http://127.0.0.1:9")
    assert outcome.exit_code == 3 and "AWS_ACCESS_KEY_ID" in outcome.stderr


@pytest.mark.usefixtures("credentials")
def test_an_endpoint_url_that_is_none(run_cli: RunCLI) -> None:
    outcome = run_cli("folders", "list", "--store", "s3://bucket", "--endpoint-url", "nonsense")
    assert outcome.exit_code == 2 and "--endpoint-url" in outcome.stderr


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("command", [["folders", "list"], ["doctor"], ["serve", "--http", "none"]])
def test_a_store_that_cannot_be_reached(run_cli: RunCLI, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # botocore's pauses between tries
    outcome = run_cli(*command, "--store", "s3://bucket", "--endpoint-url", "http://127.0.0.1:9")
    assert outcome.exit_code == 3 and "cannot be reached" in outcome.stdout + outcome.stderr


@pytest.mark.usefixtures("credentials")
def test_a_clock_that_is_off_by_an_hour(run_cli: RunCLI) -> None:
    def answer(request: Request) -> Answer:
        return Answer(date=format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True))

    with http_server(answer) as url:
        outcome = run_cli("serve", "--store", "s3://bucket", "--endpoint-url", url, "--http", "none")
    assert outcome.exit_code == 3 and "clock" in outcome.stderr and "60 minutes ahead" in outcome.stderr


@pytest.mark.store
def test_a_bucket_that_is_not_there(run_cli: RunCLI, store_arguments: list[str]) -> None:
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
async def test_a_store_of_another_kind(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    await records.write_record(bucket, "store.json", {"format": "other"})
    await bucket.close()
    for command in (["folders", "list"], ["peers", "list"], ["peers", "add", DEVICE]):
        result = python_m(*command, *store_arguments)
        assert result.returncode == 1 and "another bucket or prefix" in result.stderr


# peers


@pytest.mark.store
def test_peers_come_and_go(run_cli: RunCLI, store_arguments: list[str]) -> None:
    def listed() -> Any:
        outcome = run_cli("peers", "list", "--json", *store_arguments)
        assert outcome.exit_code == 0 and outcome.stderr == ""
        return json.loads(outcome.stdout)

    def add(*options: str) -> None:
        outcome = run_cli("peers", "add", str(DEVICE).lower(), *options, *store_arguments)
        assert (outcome.exit_code, outcome.stdout) == (0, "")

    assert listed() == []
    addresses = ["tcp://127.0.0.1:22000", "tcp://[::1]:22000"]
    add("--address", addresses[0], "--address", addresses[1], "--share", "b", "--share", "a")
    record = {"device_id": str(DEVICE), "name": "", "addresses": addresses, "share": ["b", "a"]}
    assert listed() == [record]
    add("--name", "laptop")
    assert listed() == [{**record, "name": "laptop"}]
    add("--address", addresses[0], "--name", "")
    assert listed() == [{**record, "addresses": addresses[:1]}]
    table = run_cli("peers", "list", *store_arguments)
    assert str(DEVICE) in table.stdout and addresses[0] in table.stdout
    assert run_cli("peers", "remove", DEVICE, *store_arguments).exit_code == 0
    assert listed() == []
    again = run_cli("peers", "remove", DEVICE, *store_arguments)
    assert again.exit_code == 2 and str(DEVICE) in again.stderr


@pytest.mark.parametrize("command", ["add", "remove"])
def test_a_typo_in_a_device_id(run_cli: RunCLI, command: str) -> None:
    typo = str(DEVICE)[:-2] + ("A" if str(DEVICE)[-2] != "A" else "B") + str(DEVICE)[-1]
    outcome = run_cli("peers", command, typo)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "group 4 of 4" in outcome.stderr


def test_our_own_device_id_is_no_peer(run_cli: RunCLI) -> None:
    outcome = run_cli("peers", "add", run_cli("id").stdout.strip())
    assert outcome.exit_code == 2 and "own device ID" in outcome.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:22000", "quic://h:1", "tcp://h", "dynamic"])
def test_an_address_that_is_none(run_cli: RunCLI, address: str) -> None:
    outcome = run_cli("peers", "add", DEVICE, "--address", address)
    assert outcome.exit_code == 2 and "tcp://HOST:PORT" in outcome.stderr


# folders


@pytest.mark.store
async def test_folders(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    assert json.loads(python_m("folders", "list", "--json", *store_arguments).stdout) == []
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    for folder_id, label in (("photos", "Fotos"), ("my folder", "")):
        record = records.FolderRecord(folder_id, label, b"token")
        await records.write_record(bucket, FolderKeys.of(folder_id).record, record.to_json())
    await bucket.close()
    found = json.loads(python_m("folders", "list", "--json", *store_arguments).stdout)
    assert found == [
        {"id": "my folder", "label": "", "prefix": f"{bucket_prefix}/{FolderKeys.of('my folder').base}"},
        {"id": "photos", "label": "Fotos", "prefix": f"{bucket_prefix}/folders/photos/"},
    ]
    assert "Fotos" in python_m("folders", "list", *store_arguments).stdout


@pytest.mark.store
async def test_the_removal_of_a_folder(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    for folder_id in ("photos", "photos2"):
        keys = FolderKeys.of(folder_id)
        await records.write_record(bucket, keys.record, records.FolderRecord(folder_id, "", b"token").to_json())
        for key in (keys.segment(1), keys.checkpoint(1), *(keys.object("a" * 32, f"{n:032x}") for n in range(100))):
            await bucket.put(key, [b"data"])
    await bucket.create_multipart_upload(FolderKeys.of("photos").object("b" * 32, "c" * 32))
    node = records.NodeRecord(DEVICE, "gateway", 0, "0")
    await records.write_record(bucket, layout.node_key(DEVICE), node.to_json())
    before = {item.key async for item in bucket.list("")}

    for arguments, why in (
        (["photos"], "add --yes"),
        (["photos", "--yes"], "stop all gateways"),
    ):
        outcome = python_m("folders", "remove", *arguments, *store_arguments)
        assert (outcome.returncode, why in outcome.stderr) == (2, True), outcome.stderr
    await bucket.delete(layout.node_key(DEVICE))
    outcome = python_m("folders", "remove", "other", "--yes", *store_arguments)
    assert (outcome.returncode, "no folder 'other'" in outcome.stderr) == (2, True)
    assert {item.key async for item in bucket.list("")} == before - {layout.node_key(DEVICE)}

    outcome = python_m("folders", "remove", "photos", "--yes", *store_arguments)
    assert (outcome.returncode, outcome.stderr) == (0, "removed photos: 103 objects deleted\n")
    left = {item.key async for item in bucket.list("")}
    assert left == {key for key in before if not key.startswith(("folders/photos/", "nodes/"))}
    assert [upload async for upload in bucket.list_multipart_uploads("")] == []
    await bucket.close()


# status


@pytest.fixture
def gateway_address() -> Iterator[str]:
    def answer(request: Request) -> Answer:
        return Answer(200, json.dumps(STATUS).encode()) if request.path == "/api/status" else Answer(404)

    with http_server(answer) as url:
        yield url.removeprefix("http://")


def test_status(run_cli: RunCLI, gateway_address: str) -> None:
    assert json.loads(run_cli("status", "--json", "--http", gateway_address).stdout) == STATUS
    outcome = run_cli("status", "--http", gateway_address)
    assert outcome.exit_code == 0
    for text in ("photos", "12,345", "5.0 GiB", "syncing", "laptop", "syncthing v1", "new"):
        assert text in outcome.stdout
    assert "\x1b" not in outcome.stdout


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_status_where_the_gateway_listens_everywhere(run_cli: RunCLI, gateway_address: str, host: str) -> None:
    assert run_cli("status", "--http", f"{host}:{gateway_address.rpartition(':')[2]}").exit_code == 0


def test_status_without_a_gateway(run_cli: RunCLI) -> None:
    outcome = run_cli("status", "--http", "127.0.0.1:9")
    assert (outcome.exit_code, outcome.stdout) == (5, "")
    assert "untrusted-s3 serve" in outcome.stderr
    assert run_cli("status", "--http", "none").exit_code == 2


@pytest.mark.parametrize("answer", [Answer(404), Answer(200, b"<html>"), Answer(200, b"[]"), Answer(200, b"5"), None])
def test_status_of_something_else(run_cli: RunCLI, answer: Answer | None) -> None:
    with http_server(lambda request: answer) as url:
        assert run_cli("status", "--http", url.removeprefix("http://")).exit_code == 5


# doctor


@pytest.mark.store
@on_each_s3_server
def test_doctor_finds_a_good_store_good(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", *store_arguments)
    lines = outcome.stdout.splitlines()
    assert outcome.exit_code == 0 and outcome.stderr == ""
    assert [line.split()[0] for line in lines] == ["ok"] * 8 + ["note"]
    assert "AbortIncompleteMultipartUpload" in lines[-1]


@pytest.mark.store
@on_each_s3_server
def test_doctor_sets_the_lifecycle_rule_that_is_missing(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", "--set-lifecycle", *store_arguments)
    assert outcome.exit_code == 0 and "by a rule that was added" in outcome.stdout.splitlines()[-1]
    outcome = run_cli("doctor", *store_arguments)
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == ["ok"] * 9


@pytest.mark.store
def test_doctor_tells_a_machine_what_is_wrong(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", "--json", *store_arguments, "--store", "s3://no-such-bucket")
    assert outcome.exit_code == 3
    report = json.loads(outcome.stdout)
    assert report["ok"] is False
    assert [check["result"] for check in report["checks"]] == ["FAIL"]


@pytest.mark.usefixtures("credentials")
def test_doctor_finds_a_store_that_accepts_everything_bad(run_cli: RunCLI) -> None:
    """It answers 200 to all, so that nothing is kept, refused or deleted."""
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with http_server(lambda request: Answer(200, listing)) as url:
        outcome = run_cli("doctor", "--json", "--store", "s3://bucket", "--endpoint-url", url)
    assert outcome.exit_code == 3
    results = {check["name"]: check["result"] for check in json.loads(outcome.stdout)["checks"]}
    assert {name for name, result in results.items() if result == "ok"} == {"bucket", "clock"}


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (150 << 10, "150 KiB"),
        (5 << 40, "5.0 TiB"),
        (7 << 60, "7,168 PiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
