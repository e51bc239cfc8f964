"""Changes of large files are cheap, and interrupted uploads continue, with real peers and a real store.

Files below 250 MiB have blocks of 128 KiB, so a part has 64 of them: 8 MiB, and 40 bytes a block.
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
    s3_client,
    share_folder,
    stored_keys,
    stored_objects,
)
from tests.peers.gateway import Gateway, from_parts
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, count_files, random_file
from tests.waiting import PATIENCE
from untrusted_s3.settings import ObjectSettings, Settings, UpkeepSettings

pytestmark = pytest.mark.interop

FOLDER = "large"
MIB = 1 << 20
BLOCK = 128 << 10
one_version = pytest.mark.parametrize("syncthing_version", ["1.19.2"], indirect=True)

COUNTERS = ("parts_sent", "parts_copied", "object_bytes_written", "blocks_received")


class Sharing:
    """A device and a gateway that share a folder; measures the cost of a change."""

    def __init__(self, device: Syncthing, gateway: Gateway, original: Path) -> None:
        self.device, self.gateway, self.original = device, gateway, original

    def cost(self, change: Callable[[], object]) -> dict[str, int]:
        """Return by how much the gateway's counters rise with a change of the folder."""
        before = {name: self.gateway.counter(name) for name in COUNTERS}
        change()
        rescan(self.device, self.gateway, FOLDER)
        self.gateway.wait_folder(FOLDER)
        return {name: self.gateway.counter(name) - before[name] for name in COUNTERS}


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Write in the middle of a file, and make sure that the modification time changes."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000_000))


def append(path: Path, size: int, seed: int) -> None:
    random_file(path.with_name("more"), size, seed)
    more = path.with_name("more")
    with path.open("ab") as file:
        file.write(more.read_bytes())
    more.unlink()


@one_version
def test_large_files_change_cheaply(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    path = original / "file"
    random_file(path, 64 * MIB, seed=1)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        sharing = Sharing(first, gateway, original)
        # 512 blocks in 8 parts; the trailer comes after the last one and has a part of its own.
        assert sharing.cost(lambda: None)["parts_copied"] == 0
        assert gateway.counter("parts_sent") == 9

        changed = sharing.cost(lambda: overwrite(path, 20 * MIB, b"changed"))
        assert changed["blocks_received"] == 1
        assert (changed["parts_sent"], changed["parts_copied"]) == (2, 7)
        assert changed["object_bytes_written"] < 8.2 * MIB

        grown = sharing.cost(lambda: append(path, 3 * BLOCK, 2))
        assert grown["blocks_received"] == 3
        assert (grown["parts_sent"], grown["parts_copied"]) == (1, 8)
        assert grown["object_bytes_written"] < MIB

        across = sharing.cost(lambda: append(path, 10 * MIB, 3))
        assert across["blocks_received"] == 80
        assert (across["parts_sent"], across["parts_copied"]) == (2, 8)

        shrunk = sharing.cost(lambda: os.truncate(path, 30 * MIB))
        assert shrunk["blocks_received"] == 0
        assert (shrunk["parts_sent"], shrunk["parts_copied"]) == (1, 3)

        uneven = sharing.cost(lambda: os.truncate(path, 25 * MIB - 7))
        assert uneven["blocks_received"] == 1
        assert (uneven["parts_sent"], uneven["parts_copied"]) == (1, 3)

        path.chmod(0o600)
        metadata = sharing.cost(lambda: os.utime(path, ns=(1, 10**18)))
        assert set(metadata.values()) == {0}

        small = sharing.cost(lambda: os.truncate(path, 5 * MIB))
        assert (small["parts_sent"], small["parts_copied"], small["blocks_received"]) == (0, 0, 40)
        large = sharing.cost(lambda: append(path, 15 * MIB, 4))
        # Blocks of a small object are used too.
        assert (large["parts_sent"], large["blocks_received"]) == (3, 120)
        assert_history_is_whole(gateway, FOLDER)
    with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, 1):
        assert_same_tree(original, copy)


@one_version
def test_a_step_of_the_part_size(
    s3_server: S3Server, bucket_prefix: str, syncthing_binary: Path, tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    path = original / "file"
    random_file(path, 31 * MIB, seed=1)
    gateway = Gateway(tmp_path / "gateway", s3_server, bucket_prefix)
    gateway.program = from_parts(max_parts=4)
    with (
        gateway,
        Syncthing(syncthing_binary, tmp_path / "first", "first") as first,
    ):
        share_folder(first, gateway, FOLDER, original)
        sharing = Sharing(first, gateway, original)
        sharing.cost(lambda: None)
        larger = sharing.cost(lambda: append(path, 4 * MIB, 2))
        # Parts of 128 blocks now: one is copied, the other has new blocks and the unchanged ones before them.
        assert larger["blocks_received"] == 32
        assert (larger["parts_sent"], larger["parts_copied"]) == (2, 1)
        smaller = sharing.cost(lambda: os.truncate(path, 31 * MIB))
        assert smaller["blocks_received"] == 0
        assert (smaller["parts_sent"], smaller["parts_copied"]) == (0, 0), "that content is there"
        overwritten = sharing.cost(lambda: overwrite(path, 0, b"x"))
        assert (overwritten["parts_sent"], overwritten["parts_copied"]) == (2, 2)
        assert_history_is_whole(gateway, FOLDER)
        first.stop()
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, 1):
            assert_same_tree(original, copy)


@one_version
def test_larger_blocks_and_a_step_of_their_size(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    """Blocks of 512 KiB, as Syncthing keeps blocks of up to twice the size. `LARGE_FILE_MIB=1024`: blocks of 1 MiB."""
    size = int(os.environ.get("LARGE_FILE_MIB", "520"))
    parts = -(-size // 8)
    original, copy = tmp_path / "original", tmp_path / "copy"
    large = original / "large"
    random_file(large, size * MIB, seed=1)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original)
        sharing = Sharing(first, gateway, original)
        sharing.cost(lambda: None)
        # One more part holds the trailer.
        changed = sharing.cost(lambda: overwrite(large, size * MIB * 2 // 3, b"changed"))
        assert changed["blocks_received"] == 1
        assert (changed["parts_sent"], changed["parts_copied"]) == (2, parts - 1)
        assert changed["object_bytes_written"] < 8.5 * MIB

        # A file that becomes so much smaller gets smaller blocks: all tokens differ, and all is sent.
        step = sharing.cost(lambda: os.truncate(large, 100 * MIB))
        assert step["blocks_received"] == 800
        assert (step["parts_sent"], step["parts_copied"]) == (13, 0)
    with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, 1):
        assert_same_tree(original, copy)
    _remove(original, copy)


# Interrupted


def _remove(*folders: Path) -> None:
    for folder in folders:  # pytest keeps the folders of some runs
        shutil.rmtree(folder)


def _wait_for_parts(gateway: Gateway, count: int) -> None:
    gateway.wait_for(f"{count} parts", lambda: gateway.counter("parts_sent") >= count)


def _uploads(gateway: Gateway) -> dict[str, int]:
    """Return the number of whole parts of each unfinished upload below the gateway's prefix.

    SeaweedFS keeps a part that a kill has cut short; the gateway does not use it.
    """
    assert gateway.store is not None
    client, bucket = s3_client(gateway), gateway.store.bucket
    listed = client.list_multipart_uploads(Bucket=bucket, Prefix=gateway.prefix).get("Uploads", [])
    whole = {}
    for upload in listed:
        parts = client.list_parts(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"], MaxParts=1000)["Parts"]
        sizes = [part["Size"] for part in parts]
        whole[upload["Key"]] = sizes.count(max(sizes))
    return whole


def _reconnect(device: Syncthing, gateway: Gateway) -> None:
    """Start the gateway again, and have the device dial at once, and once only."""
    device.pause_device(gateway.device_id)
    gateway.start()
    device.resume_device(gateway.device_id)
    device.wait_connected(gateway.device_id)


@one_version
def test_an_upload_goes_on_after_sigkill(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    """Kill it twice, the second time with its local state lost. `LARGE_UPLOAD_MIB=2048` uses 2 GiB."""
    size = int(os.environ.get("LARGE_UPLOAD_MIB", "192")) * MIB
    parts = -(-size // (8 * MIB)) + 1  # the last one is the trailer
    original, copy = tmp_path / "original", tmp_path / "copy"
    random_file(original / "file", size, seed=1)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        # So slowly that a busy machine sees it under way
        first.rest("PATCH", "config/options", {"limitBandwidthInLan": True})
        share_folder(first, gateway, FOLDER, original, maxSendKbps=max(size // 16 >> 10, 12_000))
        _wait_for_parts(gateway, parts // 4)
        gateway.kill()
        (first_count,) = _uploads(gateway).values()
        assert first_count >= parts // 4
        _reconnect(first, gateway)
        _wait_for_parts(gateway, parts // 4)
        assert gateway.counter("parts_resumed") >= first_count
        gateway.kill()
        (second_count,) = _uploads(gateway).values()
        assert second_count >= first_count + parts // 4
        shutil.rmtree(gateway.state)
        first.set_device(gateway.device_id, maxSendKbps=0)
        _reconnect(first, gateway)
        first.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=1)
        # Parts that were on their way at the kill may have arrived.
        resumed, sent = gateway.counter("parts_resumed"), gateway.counter("parts_sent")
        assert second_count <= resumed <= second_count + ObjectSettings().most_part_uploads
        assert resumed + sent == parts
        assert gateway.counter("block_bytes_received") <= (sent - 1) * 8.1 * MIB
        assert _uploads(gateway) == {}
        assert len(stored_objects(gateway, FOLDER)) == 1
        first.stop()
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, 1):
            assert_same_tree(original, copy)
    _remove(original, copy)


# A stop lasts as long as what is under way.
UNHURRIED = Settings(upkeep=UpkeepSettings(stop_timeout=2 * PATIENCE))


@one_version
def test_sigterm_lets_what_is_under_way_end(
    s3_server: S3Server, bucket_prefix: str, syncthing_binary: Path, tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    random_file(original / "large", 160 * MIB, seed=1)
    with (
        Gateway(
            tmp_path / "gateway", s3_server, bucket_prefix, options=["--buffer-memory", "64"], settings=UNHURRIED
        ) as gateway,
        Syncthing(syncthing_binary, tmp_path / "first", "first") as first,
    ):
        # So slowly that a busy machine sees it under way
        first.rest("PATCH", "config/options", {"limitBandwidthInLan": True})
        share_folder(first, gateway, FOLDER, original, maxSendKbps=6000)
        _wait_for_parts(gateway, 2)
        for number in range(400):
            random_file(original / "small" / f"{number}", 50_000, seed=number)
        first.scan(FOLDER)
        gateway.wait_for("some small files", lambda: gateway.folder(FOLDER)["files"] >= 20)
        assert gateway.stop() == 0
        gateway.wait_for("the Close at the peer", lambda: "shutting down" in first.log_tail(200))
        assert not gateway.logged("stopped before everything was written")
        assert stored_keys(gateway, "nodes/") == {}
        (there,) = _uploads(gateway).values()
        assert there >= 2
        objects = stored_objects(gateway, FOLDER)

        first.set_device(gateway.device_id, maxSendKbps=0, paused=True)
        gateway.start()
        # Every finished object is in the log, not only in the store.
        assert gateway.folder(FOLDER)["files"] == len(objects)
        first.resume_device(gateway.device_id)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=401)
        assert gateway.counter("parts_resumed") == there
        assert gateway.counter("parts_sent") == 21 - there
        assert _uploads(gateway) == {}
        assert_history_is_whole(gateway, FOLDER)
        first.stop()
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, count_files(original)):
            assert_same_tree(original, copy)


@one_version
def test_an_idle_gateway_stops_at_once(
    s3_server: S3Server, bucket_prefix: str, syncthing_binary: Path, tmp_path: Path
) -> None:
    random_file(tmp_path / "original" / "file", 1000, seed=1)
    with (
        Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=UNHURRIED) as gateway,
        Syncthing(syncthing_binary, tmp_path / "first", "first") as first,
    ):
        share_folder(first, gateway, FOLDER, tmp_path / "original")
        first.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=1)
        # If it waited for its time to be over, it would be killed.
        assert gateway.stop() == 0
        gateway.wait_for("the Close at the peer", lambda: "shutting down" in first.log_tail(200))
