"""Peers that go away in the middle of a file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, fetched_folder
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, random_file

pytestmark = pytest.mark.interop

FOLDER = "going"
SIZE = 24 << 20


def test_another_peer_that_has_the_file_is_asked(
    gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    random_file(original / "large", SIZE, seed=1)
    one = Syncthing(syncthing_binaries["1.19.2"], tmp_path / "one home", "one")
    other = Syncthing(syncthing_binaries["1.29.5"], tmp_path / "other home", "other")
    with one, other:
        # Both have the file before the gateway learns of it, and send it so slowly that a busy machine sees that.
        one.add_device(other.device_id, "other")
        other.add_device(one.device_id, "one", [one.listen_address])
        one.add_folder(FOLDER, original, {other.device_id: ""})
        one.scan(FOLDER)
        other.add_folder(FOLDER, copy, {one.device_id: ""})
        other.wait_in_sync(FOLDER, 1)
        for device, friend in ((one, other), (other, one)):
            device.rest("PATCH", "config/options", {"limitBandwidthInLan": True})
            gateway.add_peer(device.device_id)
            device.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
            device.set_device(gateway.device_id, maxSendKbps=800)
            gateways = {"deviceID": gateway.device_id, "encryptionPassword": PASSWORD}
            device.set_folder(FOLDER, devices=[{"deviceID": friend.device_id}, gateways])
            device.wait_connected(gateway.device_id)
        gateway.wait_for("some of the file", lambda: gateway.counter("block_bytes_received") > SIZE // 3)
        one.kill()
        gateway.wait_connected(one.device_id, connected=False)
        gateway.wait_for("some more", lambda: gateway.counter("block_bytes_received") > SIZE // 2)
        assert gateway.folder(FOLDER)["files"] == 0
        assert gateway.counter("pull_failures") == 0

        # No peer is left: the file stays pending, and nothing is retried in a loop.
        other.kill()
        gateway.wait_connected(other.device_id, connected=False)
        gateway.wait_for("the end of the pull", lambda: gateway.folder(FOLDER)["state"] == "idle")
        failures, requests = gateway.counter("pull_failures"), sum(gateway.store_requests().values())
        began = time.monotonic()
        assert failures <= 1
        assert len(gateway.logged("pull failed")) <= 1
        assert gateway.folder(FOLDER)["pending_files"] == 1

        other.start()
        other.set_device(gateway.device_id, maxSendKbps=0)
        assert gateway.counter("pull_failures") == failures
        # It also asks for some things every few seconds.
        assert sum(gateway.store_requests().values()) < requests + 30 + (time.monotonic() - began) / 2
        gateway.wait_folder(FOLDER, files=1)
        assert gateway.counter("objects_written") == 1
    with fetched_folder(one.binary, tmp_path / "third home", gateway, FOLDER, tmp_path / "third", 1):
        assert_same_tree(original, tmp_path / "third")
