"""Changes that do not wait for the gateway: thousands in one burst, some to files that it is receiving."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.interop.sharing import assert_history_is_whole, fetched_folder, share_folder
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, count_files, random_file

pytestmark = pytest.mark.interop

FOLDER = "busy"
MIB = 1 << 20
newest = pytest.mark.parametrize("syncthing_version", ["1.29.5"], indirect=True)


class Churn:
    """Random changes to a folder, reproducible by their seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.changes = 0
        self._random = random.Random(seed)
        self._files: list[Path] = []

    def create(self, count: int) -> None:
        """Add files, some in new directories."""
        for _ in range(count):
            path = self.root / f"{self._random.randrange(20)}" / f"{self._random.randrange(5)}" / self._fresh_name()
            self._write(path)
            self._files.append(path)

    def change(self, share: float) -> None:
        """Edit, extend or truncate this share of all files."""
        for path in self._random.sample(self._files, int(share * len(self._files))):
            what = self._random.randrange(3)
            if what == 0:
                self._write(path)
            else:
                data = path.read_bytes()
                path.write_bytes(data + b"more" if what == 1 else data[: len(data) // 2])
                self.changes += 1

    def remove(self, share: float) -> None:
        """Delete, rename or turn into a directory this share of all files, and move one directory."""
        self._random.shuffle(self._files)
        count = int(share * len(self._files))
        chosen, self._files = self._files[:count], self._files[count:]
        for path in chosen:
            what = self._random.randrange(8)
            self.changes += 1
            if what < 4:
                path.unlink()
            elif what < 7:
                self._files.append(path.rename(path.with_name(self._fresh_name())))
            else:
                path.unlink()
                self._write(path / "inside")
                self._files.append(path / "inside")
        old = self._random.choice(sorted(path for path in self.root.glob("*/*") if path.is_dir()))
        new = old.with_name(self._fresh_name())
        self._files = [new / path.relative_to(old) if path.is_relative_to(old) else path for path in self._files]
        old.rename(new)

    def _write(self, path: Path) -> None:
        random_file(path, self._random.choice((0, 1, 100, 2000, 20_000)), seed=self._random.randrange(1 << 30))
        self.changes += 1

    def _fresh_name(self) -> str:
        return f"{self._random.randrange(1 << 40):x}"


@newest
def test_thousands_of_changes_in_one_burst(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    original = tmp_path / "original"
    churn = Churn(original, seed=1)
    churn.create(1000)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        for _ in range(2):
            churn.create(1000)
            first.scan(FOLDER)
            churn.change(0.5)
            first.scan(FOLDER)
            churn.remove(0.33)
            first.scan(FOLDER)
        assert churn.changes > 5000
        _check(first, gateway, syncthing_binary, original)


@newest
def test_changes_while_the_version_before_is_on_its_way(
    gateway: Gateway, syncthing_binary: Path, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    large = original / "large"
    for name, size in {"large": 24, "deleted": 18, "replaced": 12, "renamed": 12}.items():
        random_file(original / name, size * MIB, seed=size)
    for number in range(40):
        random_file(original / "small" / f"{number}", MIB, seed=number)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        first.rest("PATCH", "config/options", {"limitBandwidthInLan": True})
        share_folder(first, gateway, FOLDER, original, maxSendKbps=2500)

        def some_more() -> None:
            """Wait until more blocks have arrived while the rest is under way."""
            enough = gateway.counter("block_bytes_received") + 3 * MIB
            gateway.wait_for("some more", lambda: gateway.counter("block_bytes_received") > enough)
            assert gateway.folder(FOLDER)["state"] == "syncing"

        for round_number in range(3):
            some_more()
            with large.open("r+b") as file:
                file.seek(20 * MIB)
                file.write(b"%d" % round_number)
            for number in range(0, 40, 3):
                random_file(original / "small" / f"{number}", MIB, seed=1000 * round_number + number)
            first.scan(FOLDER)
        some_more()
        (original / "deleted").unlink()
        (original / "replaced").unlink()
        random_file(original / "replaced" / "inside", 1000, seed=3)
        (original / "renamed").rename(original / "new name")
        shutil.rmtree(original / "small")
        with large.open("ab") as appended:
            appended.write(b"the end")
        first.scan(FOLDER)
        some_more()
        large.write_bytes(large.read_bytes()[: 10 * MIB])
        first.scan(FOLDER)
        first.set_device(gateway.device_id, maxSendKbps=0)
        _check(first, gateway, syncthing_binary, original)


def _check(first: Syncthing, gateway: Gateway, binary: Path, original: Path) -> None:
    """Check that the gateway becomes idle with everything there is now, and that a fresh device gets it all."""
    first.wait_connected(gateway.device_id)
    first.wait_completion(gateway.device_id, FOLDER)
    files = count_files(original)
    gateway.wait_folder(FOLDER, files=files, error=None)
    assert_history_is_whole(gateway, FOLDER)
    home = original.parent / "fresh"
    with fetched_folder(binary, home, gateway, FOLDER, home / "copy", files) as fresh:
        assert_same_tree(original, home / "copy")
        fresh.wait_completion(gateway.device_id, FOLDER)
