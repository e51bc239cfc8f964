"""Several connections from one device, of which one is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.scripted_peer import RawPeer
from tests.interop.sharing import rescan, share_folder
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import random_file
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.identity.certificate import generate

pytestmark = pytest.mark.interop

FOLDER = "connections"


def test_both_sides_dial(gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path) -> None:
    """Both dial at the same moment, many times. Each time one connection stays, and it works."""
    random_file(tmp_path / "tree" / "0", 2000, seed=0)
    with Syncthing(syncthing_binaries["1.29.5"], tmp_path / "home", "one") as one:
        gateway.add_peer(one.device_id, [one.listen_address])
        share_folder(one, gateway, FOLDER, tmp_path / "tree")
        for number in range(1, 4):
            random_file(tmp_path / "tree" / str(number), 2000, seed=number)
            one.wait_connected(gateway.device_id)
            rescan(one, gateway, FOLDER)
            gateway.wait_folder(FOLDER, files=number + 1)
            one.pause_device(gateway.device_id)
            gateway.wait_connected(one.device_id, connected=False)
            one.resume_device(gateway.device_id)
        assert gateway.wait_connected(one.device_id)["error"] is None


def test_a_peer_that_has_vanished_and_comes_again(gateway: Gateway) -> None:
    """The old connection is never closed. A third one that sends nothing has no effect."""
    identity = generate()
    gateway.add_peer(str(identity.device_id))
    config = encode_frame(pb.CLUSTER_CONFIG, b"")
    old = RawPeer(gateway, identity)
    old.wait_accepted()
    old.send(config)
    first = gateway.wait_connected(str(identity.device_id))["address"]
    new = RawPeer(gateway, identity)
    new.wait_accepted()
    assert gateway.peer(str(identity.device_id))["address"] == first
    new.send(config)
    second = gateway.wait_for(
        "the newer connection",
        lambda: (address := gateway.peer(str(identity.device_id))["address"]) != first and address,
    )
    silent = RawPeer(gateway, identity)
    silent.wait_accepted()
    silent.vanish()
    assert old.closing_reason() == "replaced by a newer connection"
    assert gateway.peer(str(identity.device_id))["address"] == second
    new.vanish()
    gateway.wait_connected(str(identity.device_id), connected=False)
