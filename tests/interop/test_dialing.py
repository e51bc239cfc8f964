"""The gateway dials peers that do not know its address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop


def _share(device: Syncthing, gateway: Gateway, path: Path) -> None:
    device.add_device(gateway.device_id, "gateway", untrusted=True)
    device.add_folder("dialed", path, {gateway.device_id: PASSWORD})
    device.scan("dialed")


def test_a_folder_goes_in_and_out_over_dialed_connections(
    seaweedfs: EmbeddedStore, bucket_prefix: str, syncthing_binary: Path, tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    files = count_files(original)
    gateway = Gateway(tmp_path / "gateway", seaweedfs, bucket_prefix)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        _share(first, gateway, original)
        gateway.add_peer(first.device_id, [first.listen_address])
        with gateway:
            first.wait_connected(gateway.device_id)
            first.wait_completion(gateway.device_id, "dialed")
            assert gateway.peer(first.device_id)["address"] == first.listen_address
            gateway.wait_folder("dialed", files=files)
    with Syncthing(syncthing_binary, tmp_path / "second", "second") as second:
        _share(second, gateway, copy)
        gateway.add_peer(second.device_id, [second.listen_address])
        with gateway:
            second.wait_in_sync("dialed", files)
    assert_same_tree(original, copy)
