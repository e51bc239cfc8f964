"""A gateway beside garbage collection: what is about to be deleted is stored once more, under another name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.file_infos import file
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.sync.fakes import has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device
from tests.virtual_time import virtual_time
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.store.garbage import Candidate, GarbageRecord, write_garbage
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.folder import Folder

pytestmark = virtual_time


async def announce(folder: Folder, peer: Device, info: FileInfo) -> None:
    peer.take(info)
    await peer.announce(folder, 1000)
    while not has(folder, info):
        await asyncio.sleep(1)


def stored_as(folder: Folder, info: FileInfo) -> NamedObject:
    entry = folder.entry(info.name)
    assert entry is not None
    named = NamedObject.of(entry)
    assert named is not None
    return named


async def note_garbage(store: SimulatedStore, *objects: NamedObject) -> None:
    candidates = [Candidate(one.name_hash, one.object_name, one.size) for one in objects]
    await write_garbage(SimulatedBucket(store), KEYS, GarbageRecord.new(store.clock(), candidates))


@pytest.mark.parametrize("sizes", [(1064,), (1 << 23, 1 << 21)], ids=["small", "large"])
async def test_an_old_content_comes_back_under_another_name(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    store = SimulatedStore()
    peer = Device(1)
    versions = [file("f", version, sizes=sizes, content=version % 2) for version in (1, 2, 3, 4)]
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path)
    await folder.open()
    async with working(folder):
        peer.share(folder)
        await announce(folder, peer, versions[0])
        first = stored_as(folder, versions[0])
        await announce(folder, peer, versions[1])
    await note_garbage(store, first)

    bucket = SimulatedBucket(store)
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    async with working(folder):
        peer.share(folder)
        await announce(folder, peer, versions[2])
        assert stored_as(folder, versions[2]).object_name == first.object_name + "-1"
        # What is named by the folder stays in use, candidate or not; and nobody lists the records again so soon.
        await note_garbage(store, stored_as(folder, versions[2]))
        await announce(folder, peer, file("f", 5, sizes=sizes, content=1))
        assert stored_as(folder, versions[2]).object_name == first.object_name + "-1"
        assert [call.key for call in bucket.calls if call.operation == "list"].count(KEYS.garbage) == 1
        assert folder.error is None
    assert name_key(versions[0].name) == first.name_hash
