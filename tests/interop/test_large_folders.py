"""Trees of thousands of files, and files that are uploaded in parts: their cost in requests, disk and memory."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore
import pytest

from tests.interop.sharing import (
    decrypt,
    download_objects,
    fetched_folder,
    object_prefix,
    regular_files,
    s3_client,
    share_folder,
    stored_keys,
    stored_objects,
)
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, copy_files, copy_stdlib, count_files, random_file
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys

pytestmark = pytest.mark.interop

MIB = 1 << 20
# How many small files there are at most. `LARGE_FOLDER_FILES=10000` uses all that an installation has, over 4000.
FILES: dict[SyncthingVersion, int] = {"1.19.2": 800, "1.29.5": 2400}
if "LARGE_FOLDER_FILES" in os.environ:
    FILES = dict.fromkeys(FILES, int(os.environ["LARGE_FOLDER_FILES"]))


@dataclass
class Stored:
    """A folder that the gateway has in full and another device got back. The gateway still runs."""

    gateway: Gateway
    folder: str
    original: Path
    copy: Path
    binary: Path
    requests: dict[str, int]
    """Requests to the store while the folder was sent to the gateway."""
    written_to_disk: int
    """Bytes that the gateway wrote to disks meanwhile."""
    seconds: float
    """How long that took. A gateway also asks for some things every few seconds."""


def _go_in_and_out(binary: Path, home: Path, gateway: Gateway, folder: str, original: Path) -> Stored:
    files = count_files(original)
    before, disk, began = gateway.store_requests(), _written_to_disk(gateway), time.monotonic()
    with Syncthing(binary, home / f"{folder} first", "first") as first:
        share_folder(first, gateway, folder, original)
        first.wait_completion(gateway.device_id, folder)
        gateway.wait_folder(folder, files=files)
    after, disk = gateway.store_requests(), _written_to_disk(gateway) - disk
    seconds = time.monotonic() - began
    requests = {name: count - before.get(name, 0) for name, count in after.items()}
    with fetched_folder(binary, home / f"{folder} second", gateway, folder, home / f"{folder} copy", files):
        pass
    return Stored(gateway, folder, original, home / f"{folder} copy", binary, requests, disk, seconds)


def _written_to_disk(gateway: Gateway) -> int:
    fields = dict(line.split(": ") for line in Path(f"/proc/{gateway.pid}/io").read_text().splitlines())
    return int(fields["write_bytes"])


@pytest.fixture(scope="module")
def home(syncthing_version: SyncthingVersion, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("large folders")
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def gateway(seaweedfs: EmbeddedStore, home: Path) -> Iterator[Gateway]:
    with Gateway(home / "gateway", seaweedfs, f"test-{uuid.uuid4().hex}") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def small_files(syncthing_version: SyncthingVersion, syncthing_binary: Path, gateway: Gateway, home: Path) -> Stored:
    """Store files of the standard library and of a large installed package, with symlinks into both."""
    original = home / "original small"
    half = FILES[syncthing_version] // 2
    copy_stdlib(original / "standard library", half)
    copy_files(Path(botocore.__file__).parent, original / "botocore", half)
    links = original / "links"
    links.mkdir()
    for number, module in enumerate(sorted((original / "standard library").glob("*.py"))[:50]):
        (links / f"link {number}").symlink_to(Path("..", module.relative_to(original)))
    (links / "to a directory").symlink_to("../botocore/data")
    return _go_in_and_out(syncthing_binary, home, gateway, "small", original)


@pytest.fixture(scope="module")
def large_files(syncthing_binary: Path, gateway: Gateway, home: Path) -> Stored:
    """Store files around the size from which they are uploaded in parts, and one over 100 MiB."""
    original = home / "original large"
    sizes = [8 * MIB - 4096, 8 * MIB + 1, 16 * MIB + 12_345, 100 * MIB + 1]
    for size in sizes:
        random_file(original / f"{size}", size, seed=size)
    return _go_in_and_out(syncthing_binary, home, gateway, "large", original)


def test_thousands_of_small_files_come_back_equal(small_files: Stored, syncthing_version: SyncthingVersion) -> None:
    assert count_files(small_files.original) >= min(4000, FILES[syncthing_version] - 1)
    assert_same_tree(small_files.original, small_files.copy)


def test_a_small_file_costs_one_put(small_files: Stored) -> None:
    files = count_files(small_files.original)
    assert small_files.gateway.counter("objects_written") >= files
    # The others are segments of the log, of which a slow machine writes more, and checkpoints.
    log = len(stored_keys(small_files.gateway, FolderKeys.of("small").base)) - files
    most = 1.01 * files + log + small_files.seconds / 10
    assert files <= small_files.requests["PUT"] <= most, small_files.requests
    # There are no other requests for a file.
    others = {name: count for name, count in small_files.requests.items() if name != "PUT"}
    assert sum(others.values()) < 10 + files / 50 + small_files.seconds / 4, others


def test_thousands_of_small_files_come_back_from_the_bucket_alone(small_files: Stored, tmp_path: Path) -> None:
    download_objects(small_files.gateway, "small", tmp_path / "objects")
    decrypt(small_files.binary, "small", tmp_path / "objects", tmp_path / "decrypted")
    expected = regular_files(small_files.original, mtimes=False)
    assert regular_files(tmp_path / "decrypted", mtimes=False) == expected
    shutil.rmtree(tmp_path)


def test_large_files_come_back_equal(large_files: Stored) -> None:
    assert_same_tree(large_files.original, large_files.copy)


def test_large_files_are_multipart_uploads_in_parts_of_whole_blocks(large_files: Stored) -> None:
    gateway, client = large_files.gateway, s3_client(large_files.gateway)
    assert gateway.store is not None
    parts = 0
    objects = stored_objects(gateway, "large")
    assert len(objects) == count_files(large_files.original)
    for key, size in objects.items():
        bucket, full_key = gateway.store.bucket, gateway.prefix + object_prefix("large") + key
        # The trailer ends with the length of what is before it.
        end = client.get_object(Bucket=bucket, Key=full_key, Range="bytes=-4")["Body"].read()
        data_size = size - int.from_bytes(end, "big") - 4
        trailer = client.get_object(Bucket=bucket, Key=full_key, Range=f"bytes={data_size}-")["Body"].read()
        block_size = parse_file_info(trailer[:-4]).message.blocks[0].size
        head = client.head_object(Bucket=bucket, Key=full_key)
        _, _, count = head["ETag"].strip('"').partition("-")
        if data_size <= 8 * MIB:
            assert count == "", "a single PUT"
            parts += 1
            continue
        part_size = -(-8 * MIB // block_size) * block_size
        assert int(count) == -(-size // part_size)
        for number in (1, int(count)):
            part = client.head_object(Bucket=bucket, Key=full_key, PartNumber=number)
            assert part["ContentLength"] == min(part_size, size - (number - 1) * part_size)
        parts += int(count)
    # The segments of the log are few beside the parts; a slow machine writes more.
    assert parts <= large_files.requests["PUT"] <= parts + 50 + large_files.seconds / 4, large_files.requests


def test_nothing_of_a_large_file_touches_the_disk(large_files: Stored) -> None:
    data = sum(path.stat().st_size for path in large_files.original.iterdir() if path.is_file())
    assert data > 100 * MIB
    assert large_files.written_to_disk < data / 20
    kept = sum(path.stat().st_size for path in large_files.gateway.state.glob("*/large/*"))
    assert 0 < kept < data / 10


def test_blocks_go_out_by_ranged_gets(small_files: Stored, large_files: Stored) -> None:
    gateway = large_files.gateway
    assert 1 <= gateway.counter("range_requests") <= gateway.counter("blocks_sent")
    # All are on presigned URLs: requests of boto3 itself are counted under the operation's name.
    assert not {"get_object", "download_file"} & gateway.store_requests().keys()
    assert gateway.counter("requests_refused") == 0


def test_memory_is_bounded_by_the_setting(
    large_files: Stored, seaweedfs: EmbeddedStore, bucket_prefix: str, tmp_path: Path
) -> None:
    # Both ways, and with thousands of small files.
    assert large_files.gateway.peak_memory() < 350 * MIB
    original = tmp_path / "original"
    original.mkdir()
    (original / "over 100 MiB").hardlink_to(large_files.original / f"{100 * MIB + 1}")
    with (
        Gateway(tmp_path / "lean", seaweedfs, bucket_prefix, options=["--buffer-memory", "64"]) as lean,
        Syncthing(large_files.binary, tmp_path / "first", "first") as first,
    ):
        share_folder(first, lean, "large", original)
        first.wait_completion(lean.device_id, "large")
        assert lean.peak_memory() < (64 + 110) * MIB
