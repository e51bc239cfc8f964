"""Devices that are accepted and removed while the gateway runs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bench.scripted_peer import RawPeer
from tests.peers.gateway import Gateway
from tests.waiting import PATIENCE
from untrusted_s3.identity.certificate import generate
from untrusted_s3.settings import Settings, UpkeepSettings
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

OFTEN = Settings(upkeep=UpkeepSettings(heartbeat_interval=0.2, peers_interval=0.2))


def test_a_running_gateway_follows_its_accepted_devices(
    seaweedfs: EmbeddedStore, bucket_prefix: str, tmp_path: Path
) -> None:
    device = generate()
    with Gateway(tmp_path / "gateway", seaweedfs, bucket_prefix, settings=OFTEN) as gateway:
        gateway.command("peers", "add", str(device.device_id))
        accepted = RawPeer(gateway, device)
        accepted.wait_accepted()

        gateway.command("peers", "remove", str(device.device_id))
        assert accepted.closing_reason() == "not accepted any more"
        gateway.wait_for("the removal", lambda: not gateway.status()["peers"])
        RawPeer(gateway, device).vanish()
        gateway.wait_for("the removed device to be unknown", lambda: bool(gateway.status()["unknown_devices"]))

        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(PATIENCE)
            gateway.add_peer(str(generate().device_id), [f"tcp://127.0.0.1:{listening.getsockname()[1]}"])
            listening.accept()[0].close()
