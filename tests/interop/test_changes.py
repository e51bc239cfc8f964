"""A trusted device changes its folder in every way.

After each change a fresh device that knows only the gateway gets the same, and so does one that was connected all the
time; the device sees the gateway complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop.sharing import (
    assert_history_is_whole,
    fetched_folder,
    rescan,
    share_folder,
    stored_objects,
    wait_same_tree,
)
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import on_each_peer
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

FOLDER = "changing"
MIB = 1 << 20
OLD = 1_234_567_890_123_456_789  # nanoseconds since 1970


def _change_contents(tree: Path) -> None:
    sizes = tree / "sizes"
    with (sizes / "131073 bytes").open("r+b") as file:  # in the second block
        file.seek(131_072)
        file.write(b"!")
    with (sizes / "131072 bytes").open("ab") as file:
        file.write(b"appended")
    os.truncate(sizes / "131071 bytes", 1024)
    os.truncate(tree / "names" / "漢字かな交じり文", 0)
    (sizes / "0 bytes").write_text("not empty any more")
    random_file(sizes / "1024 bytes", 1024, seed=99)
    # In one PUT before and in parts after, and the other way round.
    with (tree / "grows").open("ab") as file:
        file.write(bytes(4 * MIB))
    os.truncate(tree / "shrinks", 2 * MIB)


def _change_metadata(tree: Path) -> None:
    (tree / "modes" / "600").chmod(0o750)
    (tree / "private directory").chmod(0o755)
    os.utime(tree / "times" / "old", ns=(OLD, OLD))
    os.utime(tree / "shrinks", ns=(OLD, OLD))


def _change_names(tree: Path) -> None:
    (tree / "names" / "with space").rename(tree / "names" / "With Space")
    (tree / "names" / "back\\slash").unlink()
    (tree / "named folders" / "한국어").rename(tree / "moved folder")
    (tree / "level 0").rename(tree / "named folders" / "level 0")
    shutil.rmtree(tree / "named folders" / "🦄 and 👩‍👩‍👧‍👦")
    (tree / "empty directory").rmdir()
    (tree / "grows").rename(tree / "grew")
    # The two swap names.
    for name, new in (("1 bytes", "swap"), ("1023 bytes", "1 bytes"), ("swap", "1023 bytes")):
        (tree / "sizes" / name).rename(tree / "sizes" / new)


def _change_kinds(tree: Path) -> None:
    def remove(name: str) -> Path:
        path = tree / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return path

    random_file(remove("sizes/1025 bytes") / "below" / "deeper", 5000, seed=5)
    random_file(remove("named folders/quote'\"`$"), 3000, seed=3)
    random_file(remove("links/to a file"), 2000, seed=2)
    random_file(remove("links/to a directory") / "inside", 1000, seed=1)
    remove("modes/444").symlink_to("600")
    remove("moved folder").symlink_to("names")
    remove("links/to nowhere").symlink_to("somewhere else")


def _change_back(tree: Path) -> None:
    """Restore files that were replaced or deleted, with their old contents or others."""
    for name in ("sizes/1025 bytes", "links/to a directory"):
        shutil.rmtree(tree / name)
    random_file(tree / "sizes" / "1025 bytes", 1025, seed=1025)  # as it was
    (tree / "links" / "to a directory").symlink_to("../names")
    (tree / "links" / "to a file").unlink()
    (tree / "links" / "to a file").symlink_to("../sizes/1024 bytes")
    (tree / "moved folder").unlink()
    random_file(tree / "moved folder" / "inside", 777, seed=777)
    (tree / "empty directory").mkdir()
    random_file(tree / "names" / "back\\slash", 107, seed=7)  # as it was
    random_file(tree / "names" / "with space", 10_000, seed=10)
    random_file(tree / "grows", 7 * MIB, seed=70)  # as it was
    random_file(tree / "shrinks", 9 * MIB, seed=90)  # as it was, in parts
    (tree / "named folders" / "quote'\"`$").unlink()
    random_file(tree / "named folders" / "quote'\"`$" / "inside", 16, seed=16)


CHANGES: list[Callable[[Path], None]] = [
    _change_contents,
    _change_metadata,
    _change_names,
    _change_kinds,
    _change_back,
]


@on_each_peer
def test_changes_of_every_kind(
    gateway: Gateway, syncthing_version: SyncthingVersion, syncthing_binary: Path, tmp_path: Path
) -> None:
    # A fresh device after every change: with one version and store. With the others, after the last one.
    every = syncthing_version == SYNCTHING_VERSIONS[-1] and isinstance(gateway.store, EmbeddedStore)
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    random_file(original / "grows", 7 * MIB, seed=70)
    random_file(original / "shrinks", 9 * MIB, seed=90)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        files = count_files(original)
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, files) as second:
            for change in CHANGES:
                before = stored_objects(gateway, FOLDER)
                blocks = gateway.counter("blocks_received")
                change(original)
                rescan(first, gateway, FOLDER)
                wait_same_tree(gateway, original, copy)
                fresh = tmp_path / change.__name__ if every or change is CHANGES[-1] else None
                _check(gateway, syncthing_binary, original, fresh)
                after = stored_objects(gateway, FOLDER)
                assert before.items() <= after.items()  # the history stays
                if change is _change_metadata:
                    assert after == before
                    assert gateway.counter("blocks_received") == blocks

            # And the other way.
            (copy / "names" / "With Space").write_text("changed by the second device")
            (copy / "moved folder" / "inside").unlink()
            random_file(copy / "from the second device", 300_000, seed=2)
            rescan(second, gateway, FOLDER)
            wait_same_tree(gateway, copy, original)
            assert (original / "names" / "With Space").read_text() == "changed by the second device"

            _change_at_both(first, second, gateway, original, copy)
            wait_same_tree(gateway, original, copy)
            (conflict,) = (original / "sizes").glob("*.sync-conflict-*")
            assert conflict.read_text() == "changed by the first"
            assert (original / "sizes" / "0 bytes").read_text() == "changed by the second, later"
            rescan(first, gateway, FOLDER)
            _check(gateway, syncthing_binary, original, tmp_path / "conflict")


def _change_at_both(first: Syncthing, second: Syncthing, gateway: Gateway, original: Path, copy: Path) -> None:
    """Change one file at both devices while neither knows of the other's change."""
    for device in (first, second):
        device.pause_device(gateway.device_id)
        gateway.wait_connected(device.device_id, connected=False)
    for device, tree, text in (
        (first, original, "changed by the first"),
        (second, copy, "changed by the second, later"),
    ):
        file = tree / "sizes" / "0 bytes"
        file.write_text(text)
        if device is second:
            later = file.stat().st_mtime_ns + 2_000_000_000
            os.utime(file, ns=(later, later))
        device.scan(FOLDER)
    for device in (first, second):
        device.resume_device(gateway.device_id)
        device.wait_connected(gateway.device_id)


def _check(gateway: Gateway, binary: Path, original: Path, home: Path | None) -> None:
    """Check that the gateway has everything, no error, and every object of its log.

    With `home`, check also that a fresh device gets all from the gateway alone.
    """
    files = count_files(original)
    gateway.wait_folder(FOLDER, files=files, error=None)
    assert_history_is_whole(gateway, FOLDER)
    if home is None:
        return
    with fetched_folder(binary, home, gateway, FOLDER, home / "copy", files) as fresh:
        assert_same_tree(original, home / "copy")
        fresh.wait_completion(gateway.device_id, FOLDER)
    shutil.rmtree(home)
