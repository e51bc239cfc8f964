"""Two trusted devices that are never online at the same time exchange their changes through the gateway."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.interop.sharing import fetched_folder, rescan, share_folder
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file

pytestmark = pytest.mark.interop

FOLDER = "never together"


def visit(device: Syncthing, gateway: Gateway, files: int) -> None:
    """Run the device until it and the gateway have the same `files` files."""
    with device:
        device.scan(FOLDER)
        device.wait_connected(gateway.device_id)
        device.wait_in_sync(FOLDER, files)
        device.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=files)
    gateway.wait_connected(device.device_id, connected=False)


def test_both_directions_and_a_conflict(
    gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    one = Syncthing(syncthing_binaries["1.19.2"], tmp_path / "one home", "one")
    other = Syncthing(syncthing_binaries["1.29.5"], tmp_path / "other home", "other")
    trees = {one: tmp_path / "one", other: tmp_path / "other"}
    build_awkward_tree(trees[one])
    random_file(trees[one] / "edited by both", 300_000, seed=1)
    files = count_files(trees[one])
    for device, tree in trees.items():
        with device:
            share_folder(device, gateway, FOLDER, tree)
            device.wait_connected(gateway.device_id)
            device.wait_in_sync(FOLDER, files)
            rescan(device, gateway, FOLDER)
    assert_same_tree(*trees.values())

    # Each edits files of its own, and both edit one. The device that did not create it edits it last.
    for number, (device, tree) in enumerate(trees.items()):
        random_file(tree / f"new at {device.name}", 5000, seed=number)
        random_file(tree / "edited by both", 310_000 + number, seed=10 + number)
        edited = time.time() - 60 + number
        os.utime(tree / "edited by both", (edited, edited))
    (trees[one] / "sizes" / "1023 bytes").unlink()
    (trees[other] / "sizes" / "1024 bytes").rename(trees[other] / "renamed")
    lost, kept = ((tree / "edited by both").read_bytes() for tree in trees.values())

    # One deleted, two new; and the conflict file, which the device with the older edit makes.
    for device, expected in [(one, files), (other, files + 1), (one, files + 2), (other, files + 2)]:
        visit(device, gateway, expected)
    assert_same_tree(*trees.values())
    (conflict,) = trees[one].glob("edited by both.sync-conflict-*")
    assert conflict.read_bytes() == lost
    assert (trees[one] / "edited by both").read_bytes() == kept
    with fetched_folder(one.binary, tmp_path / "third home", gateway, FOLDER, tmp_path / "third", files + 2):
        assert_same_tree(trees[one], tmp_path / "third")
