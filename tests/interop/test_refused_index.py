"""A real trusted device that cannot decrypt an entry, which an untrusted device has made up."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from bench.scripted_peer import RawPeer
from tests.file_infos import directory
from tests.interop.sharing import share_folder
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import random_file
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.identity.certificate import generate
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

FOLDER = "forged"


class Equal(RawPeer):
    """An untrusted device that shares the folder which the gateway offers, and announces what it likes."""

    def pump(self) -> None:
        """Receive for a moment."""
        self.receive_for(0.05)

    def token(self) -> bytes:
        """Return the token of the folder that the gateway offers, or nothing."""
        self.pump()
        folders = [
            one for event in self._events if isinstance(event, events.ClusterConfigReceived) for one in event.folders
        ]
        tokens = [bytes(device.encryption_password_token) for folder in folders for device in folder.devices]
        return max(tokens, default=b"")

    def share(self, gateway: Gateway, own: DeviceID, token: bytes) -> None:
        """Share the folder as a device that holds encrypted data."""
        devices = [
            pb.Device(id=DeviceID.parse(gateway.device_id).raw),
            pb.Device(id=own.raw, index_id=7, encryption_password_token=token),
        ]
        config = pb.ClusterConfig(folders=[pb.Folder(id=FOLDER, devices=devices)])
        self.send(encode_frame(pb.CLUSTER_CONFIG, config.SerializeToString()))

    def announce(self, *raw: bytes) -> None:
        """Send an index."""
        self.send(encode_frame(pb.INDEX, pb.Index(folder=FOLDER, files=raw).SerializeToString()))


@pytest.mark.parametrize("version", ["1.19.2", "1.29.5"])
def test_the_operator_is_told_who_made_the_entry(
    seaweedfs: EmbeddedStore,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
    version: SyncthingVersion,
) -> None:
    (tmp_path / "original").mkdir()
    random_file(tmp_path / "original" / "file", 5000, seed=1)
    identity = generate()
    with (
        Gateway(tmp_path / "gateway", seaweedfs, f"test-{uuid.uuid4().hex}") as gateway,
        Syncthing(syncthing_binaries[version], tmp_path / "home", "trusted") as trusted,
    ):
        share_folder(trusted, gateway, FOLDER, tmp_path / "original")
        trusted.wait_connected(gateway.device_id)
        trusted.wait_completion(gateway.device_id, FOLDER)
        gateway.add_peer(str(identity.device_id), share=[FOLDER])
        equal = Equal(gateway, identity)
        equal.wait_accepted()
        equal.send(encode_frame(pb.CLUSTER_CONFIG, b""))
        gateway.wait_for("the offer of the folder", lambda: bool(equal.token()))
        equal.share(gateway, identity.device_id, equal.token())
        equal.announce(directory("forged", sequence=1).raw)

        def refused() -> bool:
            equal.pump()
            return bool(gateway.peer(trusted.device_id)["refused_indexes"])

        gateway.wait_for("the notice that the index is refused", refused)
        (notice,) = gateway.peer(trusted.device_id)["refused_indexes"]
        assert notice["id"] == FOLDER and "authentication failed" in notice["reason"]
        assert notice["entries_from"][0] == {"device_id": str(identity.device_id), "entries": 1, "trusted": False}
        equal.vanish()
