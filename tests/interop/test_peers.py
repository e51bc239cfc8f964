"""Real Syncthings without a gateway: the behaviour that the gateway must match, and a proof that the helpers see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.debian import SyncthingVersion
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, manifest

pytestmark = pytest.mark.interop

FOLDER = "awkward tree"
PASSWORD = "correct horse battery staple"


def test_an_awkward_tree_survives_an_encrypted_device(
    syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    decomposed = build_awkward_tree(original)
    files = count_files(original)
    with (
        Syncthing(syncthing_binaries["1.19.2"], tmp_path / "first home", "first") as first,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "untrusted home", "untrusted") as untrusted,
    ):
        untrusted.add_device(first.device_id, "first")
        untrusted.add_folder(FOLDER, tmp_path / "encrypted", {first.device_id: ""}, type="receiveencrypted")
        first.add_folder(FOLDER, original, {})
        first.scan(FOLDER)
        assert {name for name in manifest(original) if name.startswith("decomposed/")} == set(decomposed.values())
        first.add_device(untrusted.device_id, "untrusted", [untrusted.listen_address], untrusted=True)
        first.set_folder(FOLDER, devices=[{"deviceID": untrusted.device_id, "encryptionPassword": PASSWORD}])
        first.wait_connected(untrusted.device_id)
        completion = first.wait_completion(untrusted.device_id, FOLDER)
        assert completion["globalItems"] >= files
        untrusted.wait_in_sync(FOLDER, expected_files=files)
        first.stop()

        with Syncthing(syncthing_binaries["1.29.5"], tmp_path / "second home", "second") as second:
            second.add_device(untrusted.device_id, "untrusted", [untrusted.listen_address], untrusted=True)
            second.add_folder(FOLDER, copy, {untrusted.device_id: PASSWORD})
            untrusted.add_device(second.device_id, "second")
            untrusted.set_folder(
                FOLDER, devices=[{"deviceID": device.device_id} for device in (first, untrusted, second)]
            )
            second.wait_in_sync(FOLDER, expected_files=files)

    assert_same_tree(original, copy)
