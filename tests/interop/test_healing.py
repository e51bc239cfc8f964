"""The store loses a part of a folder's log, and an object: with the gateway's help the devices put them back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.interop.key_holder import key_holder
from tests.interop.sharing import fetched_folder, rescan, s3_client, share_folder, stored_keys
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, random_file
from untrusted_s3.settings import LogSettings, Settings, SyncSettings, UpkeepSettings
from untrusted_s3.store.layout import FolderKeys

pytestmark = pytest.mark.interop

FOLDER = "healed"
KEYS = FolderKeys.of(FOLDER)
BATCHES = 3
FILES = 20 * BATCHES
# A gateway that looks often, and heals again at once
QUICK = Settings(
    upkeep=UpkeepSettings(
        heartbeat_interval=0.5, peers_interval=0.5, heal_pause=0.1, claim_pause=0.1, restart_delay=0.5
    ),
    log=LogSettings(poll_interval=0.3, idle_poll_interval=0.3, check_interval=0.5, idle_check_interval=0.5),
    sync=SyncSettings(missing_pause=0.5, object_list_interval=0.5),
)


def delete(gateway: Gateway, key: str) -> None:
    assert gateway.store is not None
    s3_client(gateway).delete_object(Bucket=gateway.store.bucket, Key=gateway.prefix + key)


def overwrite(gateway: Gateway, key: str, body: bytes) -> None:
    assert gateway.store is not None
    s3_client(gateway).put_object(Bucket=gateway.store.bucket, Key=gateway.prefix + key, Body=body)


def delete_last_segments(gateway: Gateway, count: int) -> None:
    for key in sorted(stored_keys(gateway, KEYS.segments))[-count:]:
        delete(gateway, KEYS.segments + key)


def wait_whole(gateway: Gateway, device: Syncthing, files: int = FILES) -> None:
    """Wait until the gateway has all files, and the device says so too."""
    gateway.wait_folder(FOLDER, files=files, failing_files=0, missing_files=0)
    device.wait_connected(gateway.device_id)
    device.wait_completion(gateway.device_id, FOLDER)


def test_what_the_store_has_lost_comes_back(
    s3_server: S3Server, bucket_prefix: str, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    binary, original = syncthing_binaries["1.29.5"], tmp_path / "original"
    gateway = Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=QUICK)
    with Syncthing(binary, tmp_path / "first", "first") as first:
        with gateway:
            original.mkdir()
            share_folder(first, gateway, FOLDER, original)
            for batch in range(BATCHES):
                for number in range(FILES // BATCHES):
                    path = original / f"batch {batch}" / f"file {number}"
                    random_file(path, 2000 * number, seed=100 * batch + number)
                rescan(first, gateway, FOLDER)
            wait_whole(gateway, first)
            first.pause_device(gateway.device_id)  # resumed, it dials at once

        # The end of the log is lost while the gateway is stopped. It knows what was there.
        delete_last_segments(gateway, 2)
        with gateway:
            first.resume_device(gateway.device_id)
            wait_whole(gateway, first)
            assert len(gateway.logged("log healed")) == 1

            # It is lost while the gateway runs.
            delete_last_segments(gateway, 2)
            gateway.wait_for("the second healing", lambda: len(gateway.logged("log healed")) == 2)
            wait_whole(gateway, first)
            random_file(original / "one more", 5000, seed=1000)
            rescan(first, gateway, FOLDER)
            wait_whole(gateway, first, FILES + 1)
            first.pause_device(gateway.device_id)

        # Its end and the local state are lost: only the device knows that there was more.
        delete_last_segments(gateway, 1)
        shutil.rmtree(gateway.home / "state")
        with gateway:
            assert gateway.folder(FOLDER)["files"] == FILES
            first.resume_device(gateway.device_id)
            gateway.wait_for("the third healing", lambda: len(gateway.logged("log healed")) == 3)
            wait_whole(gateway, first, FILES + 1)

            # An object is lost, and another device asks for it.
            objects = stored_keys(gateway, KEYS.objects)
            delete(gateway, KEYS.objects + max(objects, key=lambda key: objects[key]))
            with fetched_folder(binary, tmp_path / "second", gateway, FOLDER, tmp_path / "copy", FILES + 1):
                assert_same_tree(original, tmp_path / "copy")
            assert gateway.logged("object missing or damaged")
            wait_whole(gateway, first, FILES + 1)

            # The bytes of an object change, and nobody reads it. A repair finds it; the device sends the file again.
            objects = stored_keys(gateway, KEYS.objects)
            key = max(objects, key=lambda key: objects[key])
            overwrite(gateway, KEYS.objects + key, bytes(objects[key]))
            renewals = len(gateway.logged("index of the folder renewed"))
            assert "taken back" in gateway.command("repair", FOLDER, "--read", "all", "--yes").stdout
            gateway.wait_for("the repair", lambda: len(gateway.logged("index of the folder renewed")) > renewals)
            wait_whole(gateway, first, FILES + 1)
            assert "no damage" in gateway.command("check", FOLDER, "--read", "all").stdout

            with key_holder(gateway, FOLDER) as holder:
                assert holder.run("verify").stdout.endswith(": no damage\n")
                holder.run("restore", tmp_path / "restored")
            assert_same_tree(original, tmp_path / "restored")
