"""Folders whose log was written before claims were noted: devices that stayed apart then are settled when they meet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import crc32c
import pytest

from tests.file_infos import deleted, device, file
from tests.samples.bucket import sample_bucket
from tests.simulated import SimulatedBucket
from tests.sync.fakes import new_folder, working
from tests.sync.scripted_device import Device, data_of
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.index.entry import Entry, PeerCursor, Renewal, StoredObject
from untrusted_s3.index.segment import MAGIC_1, Segment, decode_segment, encode_segment
from untrusted_s3.objects.checksums import crc32c_of
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import ClaimSettings, Settings
from untrusted_s3.store.index_id import keeps_claims
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, open_store, read_folders
from untrusted_s3.sync.folder import Folder

pytestmark = virtual_time

RECORD = FolderRecord("folder", "", b"token", index_id=99)
KEYS = FolderKeys.of("folder")
GATEWAY = device(9)


class Judge(Device):
    """A trusted device that takes over what comes before its own in a ranking of all versions by their numbers."""

    def __init__(self, number: int, ranking: Sequence[int], *has: FileInfo) -> None:
        super().__init__(number)
        self.ranking = ranking
        self.requests = 0
        for info in has:
            self.take(info)

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        self.requests += 1
        return await super().request_block(folder_id, name, number, block)

    def number(self, name: str) -> int | None:
        """Return the number of the version that it has."""
        info = self.files.get(name)
        return info.message.version.counters[0].value if info is not None else None

    def is_better(self, info: FileInfo) -> bool:
        own = self.number(info.name)
        if own is None:
            return not info.message.deleted
        return self.ranking.index(info.message.version.counters[0].value) < self.ranking.index(own)

    async def meet(self, folder: Folder, seconds: int = 200) -> None:
        """Be connected for some time."""
        self.share(folder)
        known = 0
        for _ in range(seconds // 10):
            await self.announce(folder, 100)
            for sequence, raw in list(folder.file_infos_after(known, 100, self.device_id)):
                known = sequence
                if self.is_better(info := parse_file_info(raw)):
                    self.take(info)
            folder.index_sent(self.device_id, known)
            await asyncio.sleep(10)
        folder.remove_source(self.device_id, self)


def written_before(
    bucket: SimulatedBucket, infos: Sequence[FileInfo], cursors: Mapping[Device, int], *, version: int
) -> None:
    """Write a log as gateways did before claims: of each name, the version with the larger number is there.

    In version 2 the source of an entry was noted: the last of the devices.
    """
    entries = []
    for info in infos:
        entry = Entry(info, None)
        if info.has_data:
            body = b"".join(map(data_of, info.message.blocks)) + encode_trailer(info)
            name = content_hash(info)
            bucket.store.put(KEYS.object(info.name, name), body)
            entry = Entry(info, StoredObject(name, len(body), 0, (crc32c_of([body]),)))
        if version == 2:
            entry = replace(entry, source=list(cursors)[-1].device_id)
        entries.append(entry)
    told = tuple(PeerCursor(one.device_id, one.index_id, sequence) for one, sequence in cursors.items())
    body = encode_segment(Segment(GATEWAY, bytes(16), 1_700_000_000_000, 1, tuple(entries), told))
    if version == 1:
        body = MAGIC_1 + body[len(MAGIC_1) : -4]
        body += crc32c.crc32c(body).to_bytes(4, "big")
    bucket.store.put(KEYS.segment(1), body)


def shown(folder: Folder, device_id: DeviceID) -> list[int]:
    """Return the numbers of the versions that a device is shown."""
    infos = [parse_file_info(raw) for _, raw in folder.file_infos_after(0, 100, device_id)]
    return [info.message.version.counters[0].value for info in infos]


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


FIRST, OF_A, OF_B = (file("f", number, content=number) for number in (10, 20, 21))
CHANGED = {"edited": OF_B, "deleted": deleted("f", 21)}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["AB", "BA"])
@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("winner", ["A", "B"])
async def test_devices_that_stayed_apart_end_equal_at_their_first_meetings(
    bucket: SimulatedBucket, tmp_path: Path, version: int, order: str, change: str, winner: str
) -> None:
    """The objects of all versions are there: nothing is sent again."""
    of_b = CHANGED[change]
    ranking = [20, 21, 10] if winner == "A" else [21, 20, 10]
    a, b = Judge(1, ranking, FIRST, OF_A), Judge(2, ranking, FIRST, of_b)
    written_before(bucket, [FIRST, OF_A, of_b], {a: 2, b: 2}, version=version)
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    async with working(folder):
        for _ in range(2):
            for name in order:
                await {"A": a, "B": b}[name].meet(folder)
        for one in (a, b, Device(3)):
            assert shown(folder, one.device_id) == [ranking[0]]
        assert a.number(OF_A.name) == b.number(OF_A.name) == ranking[0]
        assert folder.totals.deleted == (winner == "B" and change == "deleted")
        assert a.requests == b.requests == 0


@pytest.mark.parametrize("version", [1, 2])
async def test_a_version_that_was_ignored_is_brought_in_beside_the_other_one(
    bucket: SimulatedBucket, tmp_path: Path, version: int
) -> None:
    """Nobody knows yet who else has the current one: it stays until all devices of before have met the gateway."""
    ranking = [20, 21, 10]
    a, b = Judge(1, ranking, FIRST, OF_A), Judge(2, ranking, FIRST, OF_B)
    written_before(bucket, [FIRST, OF_B], {a: 2, b: 2}, version=version)
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    async with working(folder):
        await a.meet(folder, 2000)
        assert a.requests == 1
        assert shown(folder, a.device_id) == [20]
        assert shown(folder, device(3)) == [21]
        await b.meet(folder)
        assert b.number(OF_A.name) == 20
        assert b.requests == 0


async def test_a_deletion_that_nobody_knows_any_more(bucket: SimulatedBucket, tmp_path: Path) -> None:
    """A makes the file again, and its number is smaller: the device that had deleted it has forgotten that."""
    ranking = [20, 21]
    a, b = Judge(1, ranking, OF_A), Judge(2, ranking)
    b.sequence = 7
    written_before(bucket, [FIRST, CHANGED["deleted"]], {a: 1, b: 7}, version=1)
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    async with working(folder):
        for _ in range(2):
            for one in (a, b):
                await one.meet(folder)
        assert (a.number(OF_A.name), b.number(OF_A.name)) == (20, 20)
        assert folder.totals.files == 1


async def test_the_first_gateway_of_this_version_begins_the_index_again(tmp_path: Path) -> None:
    """Once: gateways of version 1 cannot go on, and others go on from there."""
    memory = sample_bucket("v1")
    bucket = SimulatedBucket()
    for key, body in memory.objects.items():
        bucket.store.put(key, body)
    await open_store(bucket, upgrade=True)
    (record,) = await read_folders(bucket)
    folders = [new_folder(record, bucket, tmp_path / name) for name in "12"]
    await asyncio.gather(*(folder.open() for folder in folders))
    keys = FolderKeys.of(record.folder_id)
    assert [folder.position for folder in folders] == [4, 4]
    assert not bucket.store.body(keys.segment(4)).startswith(MAGIC_1)
    segment = decode_segment(bucket.store.body(keys.segment(4)), "the key")
    assert segment.renewal is not None and segment.renewal.removals == () and segment.entries == ()
    assert keeps_claims(segment.renewal.index_id)
    assert folders[0].own_index.index_id == segment.renewal.index_id
    for folder in folders:
        folder.close()
    again = new_folder(record, bucket, tmp_path / "3")
    await again.open()
    assert again.position == 4
    again.close()


@pytest.mark.parametrize(("index_id", "began_again"), [(7, True), (8, False)])
async def test_an_index_that_an_older_gateway_has_begun(
    bucket: SimulatedBucket, tmp_path: Path, index_id: int, began_again: bool
) -> None:
    segment = Segment(GATEWAY, bytes(16), 1_700_000_000_000, 1, (), (), Renewal(index_id))
    bucket.store.put(KEYS.segment(1), encode_segment(segment))
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    assert folder.position == (2 if began_again else 1)
    assert keeps_claims(folder.own_index.index_id)
    folder.close()


async def test_a_folder_without_a_log_is_left_alone(bucket: SimulatedBucket, tmp_path: Path) -> None:
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.open()
    assert (folder.position, folder.own_index.index_id) == (0, 99)
    folder.close()


async def test_meetings_shorter_than_the_pause_between_cursors(bucket: SimulatedBucket, tmp_path: Path) -> None:
    """B says only that it has what the folder has. That is not forgotten when A's version comes."""
    ranking = [20, 21, 10]
    a, b = Judge(1, ranking, FIRST, OF_A), Judge(2, ranking, FIRST, OF_B)
    written_before(bucket, [FIRST, OF_B], {a: 2, b: 2}, version=1)
    settings = Settings(claims=ClaimSettings(chance=10.0, interval=1.0))
    folder = new_folder(RECORD, bucket, tmp_path, settings=settings)
    await folder.open()
    async with working(folder):
        await b.meet(folder, 20)
        await a.meet(folder, 40)
        await b.meet(folder, 20)
        assert b.number(OF_A.name) == 20
