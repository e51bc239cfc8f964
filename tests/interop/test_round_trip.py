"""The main job: a trusted device gives the gateway a folder and leaves, and another one gets all of it back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.sharing import (
    PASSWORD,
    decrypt,
    download_objects,
    fetched_folder,
    regular_files,
    share_folder,
    stored_keys,
    stored_objects,
)
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, manifest, random_file
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.vault.entry import Entry, Kind
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.reading import BlockReader

pytestmark = [pytest.mark.interop, on_each_s3_server]

FOLDER = "Grüße & more"  # no plain key segment


@dataclass
class RoundTrip:
    """The results of one run. The gateway still runs."""

    gateway: Gateway
    original: Path
    copy: Path
    completion: dict[str, object]
    requests_before_the_way_out: dict[str, int]


@pytest.fixture(scope="module")
def round_trip(
    syncthing_binary: Path, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RoundTrip]:
    home = tmp_path_factory.mktemp("round trip")
    original, copy = home / "original", home / "copy"
    build_awkward_tree(original)
    random_file(original / "large" / "20 MiB and some", (20 << 20) + 12_345, seed=20)
    files = count_files(original)
    with Gateway(home / "gateway", s3_server, f"test-{uuid.uuid4().hex}") as gateway:
        with Syncthing(syncthing_binary, home / "first", "first") as first:
            share_folder(first, gateway, FOLDER, original)
            first.wait_connected(gateway.device_id)
            completion = first.wait_completion(gateway.device_id, FOLDER)
            gateway.wait_folder(FOLDER, files=files)
        gateway.wait_connected(first.device_id, connected=False)
        requests = gateway.store_requests()
        with fetched_folder(syncthing_binary, home / "second", gateway, FOLDER, copy, files) as second:
            assert [name for name, peer in _connections(second) if peer] == [gateway.device_id]
        yield RoundTrip(gateway, original, copy, completion, requests)


def _connections(device: Syncthing) -> list[tuple[str, bool]]:
    connections = device.rest("GET", "system/connections")["connections"]
    return [(name, peer["connected"]) for name, peer in connections.items() if name != device.device_id]


def test_everything_comes_back_equal(round_trip: RoundTrip) -> None:
    assert_same_tree(round_trip.original, round_trip.copy)
    assert round_trip.completion["globalItems"] == len(manifest(round_trip.original, contents=False))


def test_the_status_tells_what_is_stored(round_trip: RoundTrip) -> None:
    tree = manifest(round_trip.original, contents=False).values()
    folder = round_trip.gateway.folder(FOLDER)
    assert folder["files"] == sum(entry.kind == "file" for entry in tree)
    # The gateway cannot tell a symlink from a directory.
    assert folder["directories"] == sum(entry.kind != "file" for entry in tree)
    assert folder["bytes"] > sum(entry.size or 0 for entry in tree)
    assert (folder["deleted"], folder["pending_bytes"], folder["error"]) == (0, 0, None)


def test_one_object_per_file_and_nothing_readable(round_trip: RoundTrip) -> None:
    assert len(stored_objects(round_trip.gateway, FOLDER)) == count_files(round_trip.original)
    log = json.dumps(round_trip.gateway.log(), ensure_ascii=False)
    everything = "\n".join([*stored_keys(round_trip.gateway), log])
    names = {part for name in manifest(round_trip.original, contents=False) for part in name.split("/")}
    telling = {name for name in names if len(name) >= 10}
    assert len(telling) > 20
    assert not [name for name in telling if name in everything]
    assert PASSWORD not in everything
    assert "X-Amz-Signature" not in everything


def test_no_file_data_stays_on_the_gateways_disk(round_trip: RoundTrip, tmp_path: Path) -> None:
    download_objects(round_trip.gateway, FOLDER, tmp_path)
    samples = []
    for path in tmp_path.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:  # a block's nonce and some ciphertext
                samples.append(file.read(64))
    assert len(samples) == count_files(round_trip.original)
    kept = [path for path in round_trip.gateway.home.rglob("*") if path.is_file()]
    assert {"state.sqlite", "pending.sqlite"} <= {path.name for path in kept}
    for path in kept:
        data = path.read_bytes()
        assert not any(sample in data for sample in samples), path
    assert sum(path.stat().st_size for path in kept) < round_trip.gateway.folder(FOLDER)["bytes"] / 10


def test_blocks_go_out_by_ranged_gets(round_trip: RoundTrip) -> None:
    gateway = round_trip.gateway
    blocks, ranged = gateway.counter("blocks_sent"), gateway.counter("range_requests")
    assert blocks >= count_files(round_trip.original)
    assert 1 <= ranged <= blocks
    requests = gateway.store_requests()
    # All are on presigned URLs: requests of boto3 itself are counted under the operation's name.
    assert not {"get_object", "download_file"} & requests.keys()
    assert ranged <= requests["GET"] - round_trip.requests_before_the_way_out["GET"]
    assert gateway.counter("requests_refused") == 0


@pytest.mark.parametrize("decrypting_version", SYNCTHING_VERSIONS)
def test_the_bucket_alone_is_enough(
    round_trip: RoundTrip,
    decrypting_version: SyncthingVersion,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
) -> None:
    download_objects(round_trip.gateway, FOLDER, tmp_path / "objects")
    decrypt(syncthing_binaries[decrypting_version], FOLDER, tmp_path / "objects", tmp_path / "decrypted")
    sets_mtimes = decrypting_version != "1.19.2"  # it leaves the time of the decryption
    expected = regular_files(round_trip.original, sets_mtimes)
    assert regular_files(tmp_path / "decrypted", sets_mtimes) == expected


def test_ls_lists_what_the_first_device_has(round_trip: RoundTrip, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    options = ["--folder", FOLDER, "--password-file", str(tmp_path / "password")]
    listed = round_trip.gateway.command("ls", "-R", "--json", *options).stdout.splitlines()
    found = {entry["path"]: entry for entry in map(json.loads, listed)}
    expected = manifest(round_trip.original, contents=False)
    assert found.keys() == expected.keys()
    for path, item in expected.items():
        entry = found[path]
        assert entry["kind"] == item.kind, path
        assert item.mode is None or int(entry["mode"], 8) == item.mode, path
        assert entry.get("target") == item.target, path
        assert item.size is None or entry["size"] == item.size, path
        assert item.mtime_ns is None or entry["modified"].endswith(f".{item.mtime_ns % 10**9:09}Z"), path
    (line,) = round_trip.gateway.command("ls", "-l", "large/*", *options).stdout.splitlines()
    assert line.startswith("-rw-") and f" {(20 << 20) + 12_345} " in line and line.endswith(" large/20 MiB and some")
    text = round_trip.gateway.command("cat", "sizes/0 bytes", *options).stdout
    assert text == ""


def test_every_file_can_be_read_straight_from_the_store(round_trip: RoundTrip) -> None:
    expected = {path: item for path, item in manifest(round_trip.original).items() if item.kind == "file"}
    assert asyncio.run(_read_all(round_trip.gateway)) == {
        path: (item.mtime_ns, item.sha256) for path, item in expected.items()
    }


async def _read_all(gateway: Gateway) -> dict[str, tuple[int, str]]:
    """Return the modification time and the hash of the contents of all files."""
    store = gateway.store
    assert store is not None
    credentials = S3Credentials(store.access_key, store.secret_key)
    bucket = await S3Bucket.open(StoreLocation(store.bucket, gateway.prefix), store.endpoint_url, credentials)
    try:
        async with open_folder(bucket, FOLDER, PASSWORD) as folder, BlockReader(folder) as reader:
            files = [entry for entry in folder.entries() if isinstance(entry, Entry) and entry.kind is Kind.FILE]
            contents = await asyncio.gather(*map(reader.read, files))
        # The size of the checkpoint, if there is one.
        assert bucket.requests["head_object"] <= 1
        assert bucket.requests.keys() <= {"head_bucket", "list_objects_v2", "GET", "head_object"}
    finally:
        await bucket.close()
    return {
        entry.path: (entry.modified_ns, hashlib.sha256(data).hexdigest())
        for entry, data in zip(files, contents, strict=True)
    }
