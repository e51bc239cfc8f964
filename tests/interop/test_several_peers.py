"""Several devices, folders and passwords at one gateway, and changes that users make to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.interop.sharing import rescan, share_folder, stored_keys, stored_objects
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import build_awkward_tree, count_files, random_file
from untrusted_s3.settings import Settings, UpkeepSettings

pytestmark = pytest.mark.interop

OFTEN = Settings(upkeep=UpkeepSettings(heartbeat_interval=0.5, peers_interval=0.5))


def test_devices_folders_and_passwords(
    s3_server: S3Server, bucket_prefix: str, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    for name in ("mine", "ours", "theirs"):
        random_file(tmp_path / name / "file", 2000, seed=1)
    build_awkward_tree(tmp_path / "ours")
    with (
        Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=OFTEN) as gateway,
        Syncthing(syncthing_binaries["1.19.2"], tmp_path / "one home", "one") as one,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "other home", "other") as other,
    ):
        share_folder(one, gateway, "mine", tmp_path / "mine", "first password")
        one.add_folder("ours", tmp_path / "ours", {gateway.device_id: "second password"})
        share_folder(other, gateway, "theirs", tmp_path / "theirs", "third password")
        other.set_device(gateway.device_id, numConnections=4)
        other.add_folder("ours", tmp_path / "ours here", {gateway.device_id: "second password"})
        rescan(one, gateway, "ours")
        ours = count_files(tmp_path / "ours")
        other.wait_in_sync("ours", ours)
        rescan(one, gateway, "mine")
        rescan(other, gateway, "theirs")
        for folder, files in {"mine": 1, "ours": ours, "theirs": 1}.items():
            gateway.wait_folder(folder, files=files)
        assert gateway.peer(one.device_id)["folders"] == ["mine", "ours"]
        assert gateway.peer(other.device_id)["folders"] == ["ours", "theirs"]

        # A folder is paused at the peer: the others go on, and so does this one when it is resumed.
        one.set_folder("mine", paused=True)
        gateway.wait_for("the pause", lambda: gateway.peer(one.device_id)["folders"] == ["ours"])
        random_file(tmp_path / "mine" / "while paused", 2000, seed=2)
        random_file(tmp_path / "ours" / "while paused", 2000, seed=2)
        rescan(one, gateway, "ours")
        assert gateway.peer(one.device_id)["error"] is None
        assert gateway.folder("mine")["files"] == 1
        one.set_folder("mine", paused=False)
        gateway.wait_folder("mine", files=2)
        rescan(one, gateway, "mine")

        # A folder is removed at the peer: the data stays. It comes back with another password: nothing is touched.
        one.rest("DELETE", "config/folders/mine")
        gateway.wait_for("the removal", lambda: gateway.peer(one.device_id)["folders"] == ["ours"])
        before, keys = gateway.folder("mine"), stored_keys(gateway, "folders/mine/")
        assert (before["files"], before["error"]) == (2, None)
        one.add_folder("mine", tmp_path / "mine", {gateway.device_id: "new password"})
        error = gateway.wait_for("the refusal", lambda: gateway.peer(one.device_id)["error"])
        assert "another password" in error
        assert "correct it there" in error
        random_file(tmp_path / "ours" / "beside", 2000, seed=3)
        rescan(one, gateway, "ours")
        assert (gateway.folder("mine"), stored_keys(gateway, "folders/mine/")) == (before, keys)
        one.rest("DELETE", "config/folders/mine")
        gateway.wait_for("the end of the refusal", lambda: gateway.peer(one.device_id)["error"] is None)
        assert len(gateway.logged("folder refused")) == 1

        # The peer's database is lost: another index, all of which it sends again; no data moves.
        one.stop()
        (database,) = (one.home).glob("index-*.db")
        shutil.rmtree(database)
        gateway.wait_connected(one.device_id, connected=False)
        entries, objects = gateway.counter("index_entries_received"), stored_objects(gateway, "ours")
        one.start()
        one.wait_connected(gateway.device_id)
        one.wait_in_sync("ours", ours + 2)
        random_file(tmp_path / "ours" / "later", 2000, seed=4)
        rescan(one, gateway, "ours")
        gateway.wait_folder("ours", files=ours + 3)
        assert gateway.counter("index_entries_received") >= entries + ours
        assert len(stored_objects(gateway, "ours")) == len(objects) + 1

        # The operator removes a device.
        gateway.command("peers", "remove", one.device_id)
        one.wait_connected(gateway.device_id, connected=False)
        gateway.wait_for("the end of it", lambda: gateway.peer(one.device_id) == {})
        one.pause_device(gateway.device_id)
        one.resume_device(gateway.device_id)
        unknown = gateway.wait_for("the removed device", lambda: gateway.status()["unknown_devices"])
        assert [device["device_id"] for device in unknown] == [one.device_id]
        random_file(tmp_path / "theirs" / "still here", 2000, seed=5)
        rescan(other, gateway, "theirs")

        # Syncthing 1.29.5 was told to use four connections.
        assert len(gateway.logged("peer connected", device=other.device_id)) <= 2  # it reconnected for the setting
        assert not other.rest("GET", "system/connections")["connections"][gateway.device_id].get("secondary")

        # Another password for the same folder ID, after the folder was removed from the store.
        assert gateway.stop() == 0
        gateway.command("folders", "remove", "theirs", "--yes")
        assert stored_keys(gateway, "folders/theirs/") == {}
        shared = [{"deviceID": gateway.device_id, "encryptionPassword": "new password"}]
        other.set_folder("theirs", devices=shared)
        other.pause_device(gateway.device_id)
        gateway.start()
        other.resume_device(gateway.device_id)
        other.wait_connected(gateway.device_id)
        gateway.wait_folder("theirs", files=2)
        other.wait_completion(gateway.device_id, "theirs")
        assert len(stored_objects(gateway, "theirs")) == 2
        assert gateway.folder("ours")["files"] == ours + 3
