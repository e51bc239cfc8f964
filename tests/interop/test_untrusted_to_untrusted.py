"""A native receive-encrypted Syncthing and the gateway sync with each other while no trusted device is online.

docs/untrusted-to-untrusted.md has the same steps for users.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.key_holder import key_holder
from tests.interop.sharing import PASSWORD, fetched_folder, share_folder
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

FOLDER = "untrusted"


def wait_offered(native: Syncthing, gateway: Gateway) -> None:
    """Wait until Syncthing would ask its user about the folder that the gateway offers."""

    def offered() -> bool:
        pending = native.rest("GET", "cluster/pending/folders")
        return gateway.device_id in pending.get(FOLDER, {}).get("offeredBy", {})

    gateway.wait_for("the offer", offered)


@contextmanager
def trusted_at(native: Syncthing, binary: Path, path: Path, files: int | None) -> Iterator[Syncthing]:
    """Run a fresh trusted device that knows only the native untrusted one and has all `files` from it."""
    with Syncthing(binary, path.with_name(f"{path.name} home"), path.name) as device:
        device.add_device(native.device_id, "native", [native.listen_address], untrusted=True)
        device.add_folder(FOLDER, path, {native.device_id: PASSWORD})
        shared = native.rest("GET", f"config/folders/{FOLDER}")["devices"]
        native.add_device(device.device_id, device.name)
        native.set_folder(FOLDER, devices=[*shared, {"deviceID": device.device_id}])
        device.scan(FOLDER)
        device.wait_connected(native.device_id)
        device.wait_in_sync(FOLDER, files)
        yield device


@pytest.mark.parametrize("version", SYNCTHING_VERSIONS)
def test_a_native_untrusted_device(
    version: SyncthingVersion,
    syncthing_binaries: dict[SyncthingVersion, Path],
    gateway: Gateway,
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    tmp_path: Path,
) -> None:
    native_binary = syncthing_binaries[version]
    (trusted_binary,) = (binary for other, binary in syncthing_binaries.items() if other != version)
    original, second = tmp_path / "original", tmp_path / "second"
    build_awkward_tree(original)
    random_file(original / "large", 9 << 20, seed=9)
    with Syncthing(trusted_binary, tmp_path / "first home", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
    files = count_files(original)

    with Syncthing(native_binary, tmp_path / "native home", "native") as native:
        # The gateway has everything, the native one nothing.
        gateway.add_peer(native.device_id, share=[FOLDER])
        native.add_device(gateway.device_id, "gateway", [gateway.listen_address])
        wait_offered(native, gateway)
        native.add_folder(FOLDER, tmp_path / "encrypted", {gateway.device_id: ""}, type="receiveencrypted")
        native.wait_in_sync(FOLDER, files)
        with trusted_at(native, trusted_binary, second, files) as device:
            assert_same_tree(original, second)
            # The native one learns of changes, and the gateway learns of them from it.
            random_file(second / "large", (9 << 20) + 1, seed=10)
            random_file(second / "new" / "file", 5000, seed=5)
            (second / "sizes" / "1025 bytes").unlink()
            device.scan(FOLDER)
            device.wait_completion(native.device_id, FOLDER)
        native.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=files)

        # The native one has everything, this gateway nothing.
        with Gateway(tmp_path / "fresh", seaweedfs, f"{bucket_prefix}-fresh") as fresh:
            fresh.add_peer(native.device_id)
            native.add_device(fresh.device_id, "fresh", [fresh.listen_address])
            shared = native.rest("GET", f"config/folders/{FOLDER}")["devices"]
            native.set_folder(FOLDER, devices=[*shared, {"deviceID": fresh.device_id}])
            native.wait_connected(fresh.device_id)
            native.wait_completion(fresh.device_id, FOLDER)
            fresh.wait_folder(FOLDER, files=files)
            native.stop()
            for one in (gateway, fresh):
                with key_holder(one, FOLDER) as holder:
                    # Deletions, which came through the native one, are opened and checked too.
                    assert holder.run("verify").stdout.endswith(": no damage\n")
                    listed = map(json.loads, holder.run("ls", "-R", "--deleted", "--json").stdout.splitlines())
                    assert "sizes/1025 bytes" in [entry["path"] for entry in listed if entry.get("deleted")]
            for name, one in {"third": gateway, "fourth": fresh}.items():
                with fetched_folder(trusted_binary, tmp_path / f"{name} home", one, FOLDER, tmp_path / name, files):
                    assert_same_tree(second, tmp_path / name)


def test_both_untrusted_devices_have_the_data(
    syncthing_binaries: dict[SyncthingVersion, Path], gateway: Gateway, tmp_path: Path
) -> None:
    """Both got the data from a trusted device, one after the other. When they meet without it, no data moves."""
    original = tmp_path / "original"
    build_awkward_tree(original)
    files = count_files(original)
    with Syncthing(syncthing_binaries["1.19.2"], tmp_path / "native home", "native") as native:
        with Syncthing(syncthing_binaries["1.29.5"], tmp_path / "first home", "first") as first:
            share_folder(first, gateway, FOLDER, original)
            first.wait_connected(gateway.device_id)
            first.wait_completion(gateway.device_id, FOLDER)
            native.add_device(first.device_id, "first")
            native.add_folder(FOLDER, tmp_path / "encrypted", {first.device_id: ""}, type="receiveencrypted")
            first.add_device(native.device_id, "native", [native.listen_address], untrusted=True)
            passwords = [
                {"deviceID": name, "encryptionPassword": PASSWORD} for name in (gateway.device_id, native.device_id)
            ]
            first.pause_device(gateway.device_id)
            first.set_folder(FOLDER, devices=passwords)
            first.wait_connected(native.device_id)
            native.wait_in_sync(FOLDER, files)
            # One change reaches only the native device.
            random_file(original / "late", 5000, seed=5)
            first.scan(FOLDER)
            native.wait_in_sync(FOLDER, files + 1)
        objects = gateway.counter("objects_written")
        blocks = gateway.counter("blocks_sent")
        gateway.add_peer(native.device_id)
        native.add_device(gateway.device_id, "gateway", [gateway.listen_address])
        native.set_folder(FOLDER, devices=[{"deviceID": one} for one in (first.device_id, gateway.device_id)])
        native.wait_connected(gateway.device_id)
        gateway.wait_folder(FOLDER, files=files + 1)
        native.wait_completion(gateway.device_id, FOLDER)
        native.wait_in_sync(FOLDER, files + 1)
        assert gateway.counter("objects_written") == objects + 1
        assert gateway.counter("blocks_sent") == blocks
