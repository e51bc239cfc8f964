"""The embedded SeaweedFS: its data outlives it, and it outlives nothing that it should not."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.store.embedded.store_client import BODY, client, get, is_alive, put
from tests.waiting import wait_until
from untrusted_s3.errors import EmbeddedStoreInUse, StoreError, StoreUnreachable, UsageError
from untrusted_s3.settings import EmbeddedSettings
from untrusted_s3.store.embedded.files import Ports
from untrusted_s3.store.embedded.ports import choose_ports
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.store


@pytest.fixture(autouse=True)
def _weed(weed: Path) -> None:
    """All of these need the program."""


def test_data_credentials_and_address_survive_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    for _ in range(5):
        with EmbeddedStore.start(directory) as first:
            put(first, "folder/object")
        assert not is_alive(first.pid)
        first.stop()
        with EmbeddedStore.start(directory) as second:
            assert get(second, "folder/object") == BODY
            assert (second.access_key, second.secret_key) == (first.access_key, first.secret_key)
            assert second.pid != first.pid
        if second.endpoint_url == first.endpoint_url:
            return
        # Another test has taken one of the ports meanwhile.
    pytest.fail("its address changes with each restart")


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


def test_wrong_credentials_are_refused(seaweedfs: EmbeddedStore) -> None:
    client(seaweedfs).head_bucket(Bucket=seaweedfs.bucket)
    with pytest.raises(ClientError) as refusal:
        client(seaweedfs, secret_key="wrong").head_bucket(Bucket=seaweedfs.bucket)
    assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_directory_in_use_is_refused_or_shared(seaweedfs: EmbeddedStore, bucket_prefix: str) -> None:
    with pytest.raises(EmbeddedStoreInUse, match=f"in use.*process {seaweedfs.pid}"):
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


def test_an_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be used"):
        EmbeddedStore.start(tmp_path / "file")


def test_a_port_lost_while_starting_is_noticed(tmp_path: Path) -> None:
    """weed silently takes another port if one is busy; we start it again on others."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = busy.getsockname()[1]
        asked: list[Ports] = []

        def choose_a_taken_port_first(directory: Path | None) -> Ports:
            ports = dict(choose_ports(directory))
            if not asked:
                ports["s3"] = taken - 10_000
            asked.append(ports)
            return ports

        with EmbeddedStore.start(tmp_path, choose_ports=choose_a_taken_port_first) as store:
            assert len(asked) == 2
            assert store.endpoint_url == f"http://127.0.0.1:{asked[1]['s3']}"
            put(store, "object")
    for leftover in Path("/tmp").glob(f"seaweedfs-s3-grpc-{taken + 1}.sock"):  # of the weed that took another port
        leftover.unlink()


def test_stop_kills_a_server_that_hangs(tmp_path: Path) -> None:
    store = EmbeddedStore.start(tmp_path, EmbeddedSettings(stop_timeout=0.2))
    os.kill(store.pid, signal.SIGSTOP)
    store.stop()
    assert not is_alive(store.pid)


def test_a_server_that_dies_at_once_shows_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "weed"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 7\n")
    broken.chmod(0o755)
    with pytest.raises(StoreUnreachable, match=r"status 7(.|\n)*the disk is on fire"):
        EmbeddedStore.start(tmp_path / "data", weed=broken)
    EmbeddedStore.start(tmp_path / "data").stop()  # the failure has left no lock behind


def test_a_failed_start_leaves_no_server_behind(tmp_path: Path, weed: Path) -> None:
    wrapper = tmp_path / "weed"
    # The file that says where the server listens cannot replace a directory.
    wrapper.write_text(f'#!/bin/sh\necho $$ >>pids\nmkdir endpoint.json\nexec {weed} "$@"\n')
    wrapper.chmod(0o755)
    directory = tmp_path / "data"
    with pytest.raises(StoreError, match=r"cannot be started.*endpoint\.json"):
        EmbeddedStore.start(directory, weed=wrapper)
    assert [is_alive(int(pid)) for pid in (directory / "pids").read_text().split()] == [False]


def test_a_directory_that_stays_locked_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedStoreInUse, match="does not answer"):
            EmbeddedStore.start(tmp_path, EmbeddedSettings(start_timeout=0.1))


def test_damaged_credentials_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text('{"access_key": "A"')
    with pytest.raises(UsageError, match=r"credentials\.json.*[Dd]elete"):
        EmbeddedStore.start(tmp_path)
