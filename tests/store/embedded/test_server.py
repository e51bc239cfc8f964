"""The embedded SeaweedFS: its data outlives it, and it outlives nothing that it should not."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from untrusted_s3.errors import StoreError, StoreUnreachable, UsageError
from untrusted_s3.store.embedded import server as embedded
from untrusted_s3.store.embedded.server import EmbeddedStore, find_weed

pytestmark = pytest.mark.store

BODY = os.urandom(100_000)


@pytest.fixture(autouse=True)
def _weed(weed: Path) -> None:
    """All of these need the program."""


def client(store: EmbeddedStore, secret_key: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=secret_key or store.secret_key,
        region_name="us-east-1",
        config=Config(
            proxies={},
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def put(store: EmbeddedStore, key: str, body: bytes = BODY) -> None:
    client(store).put_object(Bucket=store.bucket, Key=key, Body=body)


def get(store: EmbeddedStore, key: str) -> bytes:
    body: bytes = client(store).get_object(Bucket=store.bucket, Key=key)["Body"].read()
    return body


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_data_credentials_and_address_survive_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with EmbeddedStore.start(directory) as first:
        put(first, "folder/object")
    assert not is_alive(first.pid)
    first.stop()
    with EmbeddedStore.start(directory) as second:
        assert get(second, "folder/object") == BODY
        assert (second.endpoint_url, second.access_key, second.secret_key) == (
            first.endpoint_url,
            first.access_key,
            first.secret_key,
        )
        assert second.pid != first.pid


def test_data_survives_sigkill(tmp_path: Path) -> None:
    with EmbeddedStore.start(tmp_path) as first:
        put(first, "object")
        upload = client(first).create_multipart_upload(Bucket=first.bucket, Key="large")["UploadId"]
        part = client(first).upload_part(
            Bucket=first.bucket, Key="large", UploadId=upload, PartNumber=1, Body=bytes(5 << 20)
        )
        os.kill(first.pid, signal.SIGKILL)
    with EmbeddedStore.start(tmp_path) as second:
        assert get(second, "object") == BODY
        client(second).complete_multipart_upload(
            Bucket=second.bucket,
            Key="large",
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        assert get(second, "large") == bytes(5 << 20)


def test_data_survives_changes_of_address(tmp_path: Path) -> None:
    """A busy port moves the server elsewhere; what was written at every address is there at every other."""
    with EmbeddedStore.start(tmp_path) as first:
        put(first, "first")
    endpoint = (tmp_path / "endpoint.json").read_bytes()
    filer_port = json.loads(endpoint)["ports"]["filer"]
    with (
        socket.create_server(("127.0.0.1", filer_port + 10_000)),
        EmbeddedStore.start(tmp_path) as second,
    ):
        assert second.endpoint_url != first.endpoint_url
        assert get(second, "first") == BODY
        put(second, "second")
    (tmp_path / "endpoint.json").write_bytes(endpoint)
    with EmbeddedStore.start(tmp_path) as third:
        assert third.endpoint_url == first.endpoint_url
        put(third, "third")
        assert [get(third, key) for key in ("first", "second", "third")] == [BODY] * 3


def test_a_port_lost_while_starting_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """weed silently takes another port if one is busy; we start it again on others."""
    choose = embedded._choose_ports
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = busy.getsockname()[1]
        asked: list[dict[str, int]] = []

        def choose_a_taken_port_first(directory: Path | None) -> dict[str, int]:
            ports = choose(directory)
            if not asked:
                ports["s3"] = taken - 10_000
            asked.append(ports)
            return ports

        monkeypatch.setattr(embedded, "_choose_ports", choose_a_taken_port_first)
        with EmbeddedStore.start(tmp_path) as store:
            assert len(asked) == 2
            assert store.endpoint_url == f"http://127.0.0.1:{asked[1]['s3']}"
            put(store, "object")
    for leftover in Path("/tmp").glob(f"seaweedfs-s3-grpc-{taken + 1}.sock"):  # of the weed that took another port
        leftover.unlink()


def test_it_listens_on_loopback_alone(seaweedfs: EmbeddedStore) -> None:
    listening = embedded._listening(seaweedfs.pid)
    assert len(listening) >= 8
    assert {host for host, _ in listening} == {"127.0.0.1"}


def test_wrong_credentials_are_refused(seaweedfs: EmbeddedStore) -> None:
    client(seaweedfs).head_bucket(Bucket=seaweedfs.bucket)
    with pytest.raises(ClientError) as refusal:
        client(seaweedfs, secret_key="wrong").head_bucket(Bucket=seaweedfs.bucket)
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_secrets_are_the_owners_alone(seaweedfs: EmbeddedStore) -> None:
    assert stat.S_IMODE((seaweedfs.directory / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((seaweedfs.directory / "volumes").stat().st_mode) == 0o700
    assert seaweedfs.secret_key not in repr(seaweedfs)
    assert seaweedfs.secret_key not in (seaweedfs.directory / "seaweedfs.log").read_text()


def test_a_directory_in_use_is_refused_or_shared(seaweedfs: EmbeddedStore, bucket_prefix: str) -> None:
    with pytest.raises(UsageError, match=f"in use.*process {seaweedfs.pid}"):
        EmbeddedStore.start(seaweedfs.directory)
    with EmbeddedStore.attach_or_start(seaweedfs.directory) as attached:
        assert attached.pid == seaweedfs.pid
        put(attached, f"{bucket_prefix}/object")
    assert is_alive(seaweedfs.pid)
    assert get(seaweedfs, f"{bucket_prefix}/object") == BODY


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's word to the child is Linux's own")
def test_it_ends_with_a_killed_gateway_and_frees_the_directory(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from untrusted_s3.store.embedded.server import EmbeddedStore\n"
        "print(EmbeddedStore.start(pathlib.Path(sys.argv[1])).pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        assert is_alive(pid)
        assert os.getsid(pid) != os.getsid(gateway.pid)  # so Ctrl-C in the gateway's terminal passes it by
    finally:
        gateway.kill()
        gateway.communicate()
    with EmbeddedStore.attach_or_start(tmp_path) as store:  # waits until the old one has let go
        wait_until(lambda: not is_alive(pid))
        put(store, "object")


def test_stop_kills_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_SECONDS", 0.2)
    store = EmbeddedStore.start(tmp_path)
    os.kill(store.pid, signal.SIGSTOP)
    store.stop()
    assert not is_alive(store.pid)


def test_a_server_that_dies_at_once_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 7\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "find_weed", lambda: broken)
    with pytest.raises(StoreUnreachable, match=r"status 7(.|\n)*the disk is on fire"):
        EmbeddedStore.start(tmp_path / "data")
    monkeypatch.undo()
    EmbeddedStore.start(tmp_path / "data").stop()  # the failure has left no lock behind


def test_a_failed_start_leaves_no_server_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = []
    launch = embedded._launch

    def remember(*arguments: Any) -> subprocess.Popen[bytes]:
        process = launch(*arguments)
        pids.append(process.pid)
        (tmp_path / "endpoint.json").mkdir()  # which cannot be replaced by a file
        return process

    monkeypatch.setattr(embedded, "_launch", remember)
    with pytest.raises(StoreError, match=r"cannot be started.*endpoint\.json"):
        EmbeddedStore.start(tmp_path)
    assert [is_alive(pid) for pid in pids] == [False]


def test_a_missing_program_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"weed.*--store"):
        EmbeddedStore.start(tmp_path / "data")
    program = tmp_path / "weed"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_weed() == program


def test_damaged_credentials_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text('{"access_key": "A"')
    with pytest.raises(UsageError, match=r"credentials\.json.*[Dd]elete"):
        EmbeddedStore.start(tmp_path)


def test_an_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        EmbeddedStore.start(tmp_path / "file")
