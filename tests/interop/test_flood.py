"""Ten thousand connections of strangers: memory and files stay bounded, and a real peer gets in and syncs."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import threading
import time
from collections import deque
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.scripted_peer import RawPeer, open_socket
from tests.interop.sharing import share_folder
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import random_file
from tests.waiting import PATIENCE
from untrusted_s3.identity.certificate import generate
from untrusted_s3.settings import ConnectionSettings

pytestmark = pytest.mark.interop

_CONNECTIONS = 10_000
_HELD = 4000
# Strangers send nothing, or the beginning of a TLS record of 16 KiB.
_OPENINGS = (b"", b"\x16", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(2000))


class Flood:
    """A flood of connections from many addresses, of which the last `_HELD` stay open."""

    def __init__(self, listen_address: str) -> None:
        address = urlsplit(listen_address)
        self._target = address.hostname, address.port
        self._held: deque[socket.socket] = deque()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.opened = 0

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for connection in self._held:
            connection.close()

    def _run(self) -> None:
        for number in itertools.count():
            if self._ended.is_set():
                return
            with contextlib.suppress(OSError):
                self._held.append(self._connection(number))
                self.opened += 1
            if len(self._held) > _HELD:
                self._held.popleft().close()
            if number % 100 == 0:
                self._ended.wait(0.05)

    def _connection(self, number: int) -> socket.socket:
        connection = socket.create_connection(self._target, PATIENCE, source_address=(f"127.0.1.{number % 200 + 1}", 0))
        connection.sendall(_OPENINGS[number % len(_OPENINGS)])
        return connection


def open_files(gateway: Gateway) -> int:
    return sum(1 for _ in Path(f"/proc/{gateway.pid}/fd").iterdir())


def test_ten_thousand_connections_of_strangers(
    gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path, bucket_prefix: str
) -> None:
    random_file(tmp_path / "files" / "file", 3_000_000, seed=1)
    before = gateway.peak_memory()
    binary = next(iter(syncthing_binaries.values()))
    with Flood(gateway.listen_address) as flood, Syncthing(binary, tmp_path / "device", "device") as device:
        gateway.wait_for("a full table", lambda: flood.opened >= 2000)
        share_folder(device, gateway, bucket_prefix, tmp_path / "files")
        device.wait_connected(gateway.device_id)
        device.wait_completion(gateway.device_id, bucket_prefix)
        most = 0

        def enough() -> bool:
            nonlocal most
            most = max(most, open_files(gateway))
            return flood.opened >= _CONNECTIONS

        gateway.wait_for("ten thousand connections", enough)
        assert gateway.peer(device.device_id)["connected"]
        random_file(tmp_path / "files" / "another", 1_000_000, seed=2)
        device.scan(bucket_prefix)
        device.wait_completion(gateway.device_id, bucket_prefix)
        print(flood.opened, most, (gateway.peak_memory() - before) >> 20)
    assert most < ConnectionSettings().max_unadmitted + 1500
    assert gateway.peak_memory() < before + (160 << 20)
    assert gateway.logged("connections of unknown devices cut, too many are open")
    assert len(gateway.log_file.read_bytes()) < 1 << 20, "nobody can fill the disk with our log"
    gateway.wait_for("the end of the strangers", lambda: open_files(gateway) < 100)


def processor_seconds(gateway: Gateway) -> float:
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_file_descriptor_is_left(gateway: Gateway) -> None:
    identity = generate()
    gateway.add_peer(str(identity.device_id))
    few = open_files(gateway) + 20
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (few, few))
    with contextlib.ExitStack() as strangers:
        for _ in range(200):
            with contextlib.suppress(OSError):
                strangers.enter_context(open_socket(gateway))

        def is_idle() -> bool:
            before = processor_seconds(gateway)
            time.sleep(1)
            return processor_seconds(gateway) < before + 0.5

        gateway.wait_for("it not to try all the time", is_idle)
        assert open_files(gateway) <= few

    def accepted() -> bool:
        with contextlib.suppress(OSError, AssertionError):  # the gateway may still close what comes
            RawPeer(gateway, identity).wait_accepted()
            return True
        return False

    gateway.wait_for("an accepted device", accepted)
    assert gateway.peer(str(identity.device_id))
    assert len(gateway.log()) < 1000
