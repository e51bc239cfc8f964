"""Two trusted devices that know nobody but the gateway: what one changes, the other gets, and the bucket little of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.interop.sharing import fetched_folder, rescan, share_folder, stored_objects
from tests.peers.gateway import Gateway, GatewayFailed
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, manifest, random_file

pytestmark = pytest.mark.interop

FOLDER = "changing"


def _change_contents(tree: Path) -> None:
    with (tree / "sizes" / "131073 bytes").open("r+b") as file:  # in the second block
        file.seek(131_072)
        file.write(b"!")
    with (tree / "sizes" / "131072 bytes").open("ab") as file:
        file.write(b"appended")
    os.truncate(tree / "sizes" / "131071 bytes", 1024)
    os.truncate(tree / "names" / "漢字かな交じり文", 0)
    (tree / "names" / "with space").rename(tree / "names" / "renamed")
    (tree / "names" / "back\\slash").unlink()
    shutil.rmtree(tree / "named folders" / "🦄 and 👩‍👩‍👧‍👦")
    (tree / "empty directory").rmdir()
    (tree / "links" / "to nowhere").unlink()
    (tree / "links" / "to nowhere").symlink_to("somewhere else")
    (tree / "sizes" / "1 bytes").unlink()
    (tree / "sizes" / "1 bytes").mkdir()
    random_file(tree / "new directory" / "new file", 50_000, seed=99)


def _change_metadata(tree: Path) -> None:
    (tree / "modes" / "600").chmod(0o750)
    (tree / "private directory").chmod(0o755)
    os.utime(tree / "times" / "old", ns=(1_234_567_890_123_456_789, 1_234_567_890_123_456_789))


def test_changes_of_every_kind(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        files = count_files(original)
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, files) as second:
            assert_same_tree(original, copy)

            _change_contents(original)
            rescan(first, gateway, FOLDER)
            _wait_equal(gateway, original, copy)
            gateway.wait_folder(FOLDER, files=count_files(original))

            before = stored_objects(gateway, FOLDER), gateway.counter("objects_written")
            blocks = gateway.counter("blocks_received")
            _change_metadata(original)
            rescan(first, gateway, FOLDER)
            _wait_equal(gateway, original, copy)
            assert (stored_objects(gateway, FOLDER), gateway.counter("objects_written")) == before
            assert gateway.counter("blocks_received") == blocks

            # And the other way.
            (copy / "names" / "renamed").write_text("changed by the second device")
            (copy / "new directory" / "new file").unlink()
            random_file(copy / "from the second device", 300_000, seed=2)
            rescan(second, gateway, FOLDER)
            _wait_equal(gateway, copy, original)
            assert (original / "names" / "renamed").read_text() == "changed by the second device"
            assert gateway.folder(FOLDER)["error"] is None


def _wait_equal(gateway: Gateway, original: Path, copy: Path) -> None:
    def equal() -> bool:
        try:
            return manifest(original) == manifest(copy)
        except FileNotFoundError:  # changed while we looked
            return False

    try:
        gateway.wait_for("both devices to hold the same", equal)
    except GatewayFailed:
        assert_same_tree(original, copy)
        raise
