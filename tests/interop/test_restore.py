"""Data that real Syncthing gave the gateway is restored without it, compared with the original, and verified."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.key_holder import KeyHolder, key_holder
from tests.interop.sharing import object_prefix, s3_client, share_folder, stored_keys, stored_objects
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, manifest, random_file
from tests.waiting import PATIENCE
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import MIB

pytestmark = pytest.mark.interop

# For tests where the version that filled the bucket does not matter.
newest_version = pytest.mark.parametrize("syncthing_version", SYNCTHING_VERSIONS[-1:], indirect=True)

FOLDER = "Grüße & more"
LARGE = "large/40 MiB and some"


@dataclass
class Filled:
    """A bucket that a real Syncthing has filled. Only the store still runs."""

    gateway: Gateway
    original: Path
    sends_platform_data: bool


@pytest.fixture(scope="module")
def filled(
    syncthing_binary: Path,
    syncthing_version: SyncthingVersion,
    seaweedfs: EmbeddedStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Filled:
    home = tmp_path_factory.mktemp("restore")
    original = home / "original"
    build_awkward_tree(original)
    random_file(original / LARGE, 40 * MIB + 12_345, seed=40)
    with (original / "large/sparse").open("wb") as file:
        file.truncate(24 * MIB)
        file.seek(12 * MIB)
        file.write(b"in the middle")
    sends_platform_data = syncthing_version != "1.19.2"
    if sends_platform_data:
        os.setxattr(original / "sizes/1 bytes", "user.colour", b"red")
    with (
        Gateway(home / "gateway", seaweedfs, f"test-{uuid.uuid4().hex}") as gateway,
        Syncthing(syncthing_binary, home / "first", "first") as first,
    ):
        share_folder(first, gateway, FOLDER, original)
        if sends_platform_data:
            first.set_folder(FOLDER, sendOwnership=True, sendXattrs=True)
            first.scan(FOLDER)
        first.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=count_files(original))
    return Filled(gateway, original, sends_platform_data)


@pytest.fixture
def holder(filled: Filled) -> Iterator[KeyHolder]:
    with key_holder(filled.gateway, FOLDER) as running:
        yield running


def assert_same_directory_times(expected: Path, actual: Path) -> None:
    """Compare the times of directories, which Syncthing sends but does not set."""
    for name, entry in manifest(expected, contents=False).items():
        # The scan itself changes this directory.
        if entry.kind == "directory" and name != "decomposed":
            assert (actual / name).stat().st_mtime_ns == (expected / name).stat().st_mtime_ns, name


@contextmanager
def flipped(gateway: Gateway, key: str, offset: int) -> Iterator[None]:
    """Flip one bit of an object for a while. A negative offset counts from its end."""
    client, store = s3_client(gateway), gateway.store
    assert store is not None
    where = gateway.prefix + key
    body = client.get_object(Bucket=store.bucket, Key=where)["Body"].read()
    changed = bytearray(body)
    changed[offset] ^= 1
    client.put_object(Bucket=store.bucket, Key=where, Body=bytes(changed))
    try:
        yield
    finally:
        client.put_object(Bucket=store.bucket, Key=where, Body=body)


def test_everything_comes_back(filled: Filled, holder: KeyHolder, tmp_path: Path) -> None:
    target = tmp_path / "target"
    report = json.loads(holder.run("restore", target, "--json").stdout)
    assert_same_tree(filled.original, target)
    assert_same_directory_times(filled.original, target)
    kinds = [entry.kind for entry in manifest(filled.original, contents=False).values()]
    assert report["files"] == kinds.count("file")
    assert report["symlinks"] == kinds.count("symlink")
    assert report["directories"] == kinds.count("directory")
    assert report["ok"] and not report["failed"] and not report["incomplete"]
    assert (target / "large/sparse").stat().st_blocks * 512 <= MIB

    # Once more: nothing is fetched.
    before = holder.requests_for_objects()
    again = holder.run("restore", target)
    assert f"{len(kinds) - kinds.count('directory')} there already" in again.stderr
    assert holder.requests_for_objects() == before
    assert_same_tree(filled.original, target)


@newest_version
def test_a_part_of_it_comes_back(filled: Filled, holder: KeyHolder, tmp_path: Path) -> None:
    target = tmp_path / "target"
    holder.run("restore", target, "--path", "named folders/*Köln", "--path", "**/1024 bytes")
    files = {name for name, entry in manifest(target, contents=False).items() if entry.kind == "file"}
    assert files == {"named folders/Grüße aus Köln/inside", "sizes/1024 bytes"}
    listed = holder.run("restore", tmp_path / "never", "--dry-run", "--path", "links")
    assert sorted(listed.stdout.splitlines()) == ["links/to a directory", "links/to a file", "links/to nowhere"]
    assert not (tmp_path / "never").exists()


def test_ownership_and_attributes_come_back_where_asked_for(filled: Filled, holder: KeyHolder, tmp_path: Path) -> None:
    name, target = "sizes/1 bytes", tmp_path / "target"
    report = json.loads(holder.run("restore", target, "--owner", "--xattrs", "--path", name, "--json").stdout)
    assert report["ok"] and not report["incomplete"]
    # The older version sends neither; both files belong to the user that runs the test.
    assert os.listxattr(target / name) == (["user.colour"] if filled.sends_platform_data else [])
    restored, original = (target / name).stat(), (filled.original / name).stat()
    assert (restored.st_uid, restored.st_gid) == (original.st_uid, original.st_gid)
    holder.run("restore", tmp_path / "plain", "--path", name)
    assert os.listxattr(tmp_path / "plain" / name) == []


@newest_version
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_restore_goes_on(filled: Filled, holder: KeyHolder, tmp_path: Path, number: int) -> None:
    target = tmp_path / "target"
    holder.proxy.bandwidth = 4 * MIB  # so the large file is under way for long
    with holder.start("restore", target, "--buffer-memory", 64) as process:
        while process.poll() is None:
            temporary = list(target.glob("large/.untrusted-s3-*"))
            if temporary and (target / "sizes/1 bytes").exists():
                break
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not list(target.rglob(".untrusted-s3-*"))
    finished = {name for name, entry in manifest(target, contents=False).items() if entry.kind == "file"}
    assert "sizes/1 bytes" in finished
    assert LARGE not in finished
    holder.proxy.bandwidth = None
    report = json.loads(holder.run("restore", target, "--json").stdout)
    assert report["there"] == len(finished)
    assert_same_tree(filled.original, target)


def test_all_of_it_is_whole(filled: Filled, holder: KeyHolder) -> None:
    report = json.loads(holder.run("verify", "--json").stdout)
    sizes = stored_objects(filled.gateway, FOLDER)
    assert (report["ok"], report["files"], report["bytes"]) == (True, len(sizes), sum(sizes.values()))
    sampled = holder.run("verify", "--sample", "5%", "--seed", 7).stdout
    assert "--seed 7" in sampled and "no damage" in sampled


@newest_version
def test_one_bit_of_anything_is_found_and_named(filled: Filled, holder: KeyHolder, tmp_path: Path) -> None:
    gateway, keys = filled.gateway, FolderKeys.of(FOLDER)
    prefix = object_prefix(FOLDER)
    sizes = stored_objects(gateway, FOLDER)
    large = prefix + max(sizes, key=lambda key: sizes[key])
    segment = keys.segment(1)
    assert segment in stored_keys(gateway)
    with flipped(gateway, large, 20 * MIB):
        found = holder.run("verify", exit_code=1)
        assert LARGE in found.stderr and "its block at" in found.stderr
        # The restore names it as well, and goes on.
        failed = holder.run("restore", tmp_path / "target", exit_code=1)
        assert LARGE in failed.stderr
        assert count_files(tmp_path / "target") == count_files(filled.original) - 1
    with flipped(gateway, large, -100):
        assert "trailer" in holder.run("verify", "--path", LARGE, exit_code=1).stderr
    with flipped(gateway, segment, 100):
        report = json.loads(holder.run("verify", "--json", exit_code=1).stdout)
        assert [problem["path"] for problem in report["log"]] == [segment]
    holder.run("verify")
