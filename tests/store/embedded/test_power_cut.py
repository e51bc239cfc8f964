"""After a power cut the embedded store has all that others rely on, and nothing that cannot be read."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loops import one_loop
from tests.store.embedded.power_cut import RecordedFsync, copy_paused, cut, cut_to_synced
from tests.store.embedded.store_client import client, get, put
from untrusted_s3.settings import EmbeddedSettings
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.disk_sync import DiskSync, EmbeddedBucket
from untrusted_s3.store.embedded.files import (
    Credentials,
    Ports,
    is_in_doubt,
    is_unchecked,
    read_last_ports,
    write_last_ports,
)
from untrusted_s3.store.embedded.ports import choose_ports
from untrusted_s3.store.embedded.process import BUCKET
from untrusted_s3.store.embedded.recovery import Starting, remove_objects_without_data
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.embedded.volumes import repair_volumes
from untrusted_s3.store.layout import FolderKeys, StoreLocation

pytestmark = pytest.mark.store

KEYS = FolderKeys.of("folder")


def body(number: int) -> bytes:
    return random.Random(number).randbytes(1000 + 997 * number)


def object_key(number: int) -> str:
    return KEYS.object(f"name {number}", "0" * 32)


@pytest.fixture(scope="module")
def stopped(weed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store with some objects, one of them deleted, that was stopped as it should be."""
    directory = tmp_path_factory.mktemp("stopped")
    with EmbeddedStore.start(directory) as store:
        for number in range(30):
            put(store, object_key(number), body(number))
        client(store).delete_object(Bucket=store.bucket, Key=object_key(0))
    return directory


@pytest.fixture
def image(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage. Its files say that it is the original."""
    copy = Path(shutil.copytree(stopped, tmp_path / "image"))
    write_last_ports(copy, read_last_ports(copy))
    return copy


def volume(directory: Path, extension: str) -> Path:
    (path,) = (directory / "volumes").glob(f"untrusted-s3_*{extension}")
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: cut(index, 5),
        lambda index: cut(index, 17 * 10),
        lambda index: cut(index, 17 * 10 + 3, zeros=True),
        lambda index: cut(index, 17 * 1000),
        lambda index: index.unlink(),
    ],
    ids=["part of an entry", "ten entries", "zeros", "empty", "missing"],
)
def test_a_damaged_index_is_made_from_the_data(weed: Path, image: Path, damage: Callable[[Path], None]) -> None:
    index, data = volume(image, ".idx"), volume(image, ".dat")
    before, content = index.read_bytes(), data.read_bytes()
    damage(index)
    damaged = index.read_bytes() if index.exists() else None
    (repaired,) = repair_volumes(weed, image)
    assert (repaired.name, repaired.cut) == (index.stem, 0)
    assert (index.read_bytes(), data.read_bytes()) == (before, content)
    kept = repaired.kept / index.name
    assert (kept.read_bytes() if kept.exists() else None) == damaged


@pytest.mark.parametrize("zeros", [False, True])
def test_data_that_are_not_whole_are_cut_off_and_kept(weed: Path, image: Path, zeros: bool) -> None:
    data = volume(image, ".dat")
    content = data.read_bytes()
    cut(data, 40_000, zeros=zeros)
    damaged = data.read_bytes()
    (repaired,) = repair_volumes(weed, image)
    assert repaired.cut > 0 and data.read_bytes() == content[: len(damaged) - repaired.cut]
    (tail,) = repaired.kept.glob(f"{data.stem}.[0-9]*")
    assert tail.read_bytes() == damaged[-repaired.cut :]
    assert repair_volumes(weed, image) == []


def test_healthy_volumes_are_left_alone(weed: Path, image: Path) -> None:
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (image / "volumes").iterdir()}
    assert repair_volumes(weed, image) == []
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (image / "volumes").iterdir()} == before
    assert not (image / "repaired").exists()


@one_loop
async def test_what_the_log_names_survives(weed: Path, tmp_path: Path) -> None:
    """All that no fsync has brought to the disk is lost."""
    fsync = RecordedFsync()
    with EmbeddedStore.start(tmp_path / "data") as store:
        bucket = await EmbeddedBucket.open(
            StoreLocation(store.bucket, ""), store.endpoint_url, S3Credentials(store.access_key, store.secret_key)
        )
        bucket.disk = DiskSync(store.directory, fsync)
        for number in range(20):
            await bucket.put(object_key(number), [body(number)], if_none_match=True)
        await bucket.put(KEYS.segment(1), [b"segment"], if_none_match=True)
        for number in range(20, 25):
            await bucket.put(object_key(number), [body(number)], if_none_match=True)
        await bucket.close()
        copy_paused(store.pid, store.directory, tmp_path / "image")
        cut_to_synced(store.directory, tmp_path / "image", fsync.sizes)
    with EmbeddedStore.start(tmp_path / "image") as store:
        assert get(store, KEYS.segment(1)) == b"segment"
        assert [get(store, object_key(number)) for number in range(20)] == [body(number) for number in range(20)]


@one_loop
async def test_objects_without_data_make_room_for_new_ones(image: Path) -> None:
    """Until they do, no other gateway reaches the server: what it wrote would get the numbers of the lost data."""
    ports = read_last_ports(image)
    asked: list[Path | None] = []

    def choose(directory: Path | None) -> Ports:
        asked.append(directory)
        chosen = choose_ports(directory)
        assert (chosen == ports) is (directory is not None)
        return chosen

    cut(volume(image, ".dat"), 40_000, zeros=True)
    with EmbeddedStore.start(image, choose_ports=choose) as store:
        assert asked == [None, None, image]
        listing = client(store).list_objects_v2(Bucket=store.bucket)["Contents"]
        there = {item["Key"] for item in listing}
        lost = [number for number in range(1, 30) if object_key(number) not in there]
        assert 1 <= len(lost) <= 3
        for number in set(range(1, 30)).difference(lost):
            assert get(store, object_key(number)) == body(number)
        bucket = await EmbeddedBucket.open(
            StoreLocation(store.bucket, ""), store.endpoint_url, S3Credentials(store.access_key, store.secret_key)
        )
        bucket.disk = DiskSync(store.directory)
        for number in lost:
            await bucket.put(object_key(number), [body(number)], if_none_match=True)
            assert await bucket.get(object_key(number)) == body(number)
        await bucket.close()


def test_names_from_a_later_moment_than_their_data_are_removed(image: Path, tmp_path: Path) -> None:
    """A copy of a running store, made file by file, was put in its place. The system has not started since."""
    copy = tmp_path / "copy"
    with EmbeddedStore.start(image) as store:
        assert not store.in_doubt
        volumes = {path.name: path.read_bytes() for path in (image / "volumes").glob("untrusted-s3_*")}
        put(store, object_key(100), body(100))
        shutil.copytree(image, copy)
    for name, content in volumes.items():
        (copy / "volumes" / name).write_bytes(content)
    with EmbeddedStore.start(copy) as store:
        assert store.in_doubt
        there = {item["Key"] for item in client(store).list_objects_v2(Bucket=store.bucket)["Contents"]}
        assert object_key(100) not in there and object_key(1) in there
        store.checked()
    assert not is_in_doubt(copy) and not is_unchecked(copy)


def test_names_that_no_listing_has_are_removed(image: Path, tmp_path: Path) -> None:
    """Half of the databases of names are of a later moment than the others."""
    later = Path(shutil.copytree(image, tmp_path / "later"))
    numbers = range(1, 60)
    with EmbeddedStore.start(later) as store:
        for number in numbers[29:]:
            put(store, object_key(number), body(number))
    for database in range(4):
        target = later / "volumes" / "filerldb2" / f"{database:02d}"
        shutil.rmtree(target)
        shutil.copytree(image / "volumes" / "filerldb2" / f"{database:02d}", target)
    with EmbeddedStore.start(Path(shutil.copytree(later, tmp_path / "copy"))) as store:
        there = {item["Key"] for item in client(store).list_objects_v2(Bucket=store.bucket)["Contents"]}
        assert {object_key(number) for number in numbers[:29]} <= there
        for number in numbers:
            if object_key(number) in there:
                assert get(store, object_key(number)) == body(number)
            else:
                client(store).put_object(
                    Bucket=store.bucket, Key=object_key(number), Body=body(number), IfNoneMatch="*"
                )
        assert {path.name for path in (store.directory / "repaired").glob("*/*")} >= {"filerldb2"}


def test_names_that_the_server_does_not_take_back_are_given_again(weed: Path, image: Path, tmp_path: Path) -> None:
    """SeaweedFS's shell may lose the last name that it loads, and counts it as loaded. Here it loses all of them."""
    program, lost = tmp_path / "weed", tmp_path / "lost"
    program.write_text(
        f"""#!/bin/sh
case "$*" in *" shell "*)
    commands=$(cat)
    case "$commands" in *fs.meta.load*)
        [ -e {lost} ] || {{ touch {lost}; echo "total 64 directories, 29 files"; exit; }}
    esac
    echo "$commands" | {weed} "$@"
    exit
esac
exec {weed} "$@"
"""
    )
    program.chmod(0o700)
    descriptor = os.open(image / "lock", os.O_RDWR)
    try:
        starting = Starting(program, image, descriptor, Credentials.load(image), EmbeddedSettings(), choose_ports)
        assert remove_objects_without_data(starting, BUCKET) == []
    finally:
        os.close(descriptor)
    assert lost.exists()
    with EmbeddedStore.start(image) as store:
        there = {item["Key"] for item in client(store).list_objects_v2(Bucket=store.bucket)["Contents"]}
    assert there == {object_key(number) for number in range(1, 30)}
