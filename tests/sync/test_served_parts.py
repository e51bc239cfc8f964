"""Damage of objects that is noticed while their blocks are served."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import crc32c
import pytest

from tests.file_infos import device, directory, entry, file
from tests.simulated import Fault, SimulatedBucket
from tests.sync.fakes import has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device, data_of
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.counters import Counters
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.responder import Responder
from untrusted_s3.sync.served_parts import ServedParts, WrongPart

pytestmark = virtual_time

BLOCKS = (2000, 2000, 2000, 2000, 2000, 1064)
FILE = file("a", sizes=BLOCKS)
BODY = b"".join(map(data_of, FILE.message.blocks)) + encode_trailer(FILE)


def stored(part_size: int, body: bytes = BODY, info: FileInfo = FILE) -> Entry:
    """Return the entry of an object in parts of a size; 0 for a single PUT."""
    step = part_size or len(body)
    checksums = tuple(crc32c.crc32c(body[start : start + step]) for start in range(0, len(body), step))
    name = entry(info).stored
    assert name is not None
    return Entry(info, StoredObject(name.object_name, len(body), part_size, checksums))


class Served:
    """Parts of one object, and what is said of them."""

    def __init__(self) -> None:
        self.wrong: list[WrongPart] = []
        self.parts = ServedParts(self.wrong.append)

    def serve(self, of: Entry, body: bytes, numbers: list[int]) -> list[int]:
        """Serve some blocks of an object. Return where the parts begin that are wrong."""
        self.wrong.clear()
        for number in numbers:
            block = of.file_info.message.blocks[number]
            self.parts.expect("key", of, block.offset)
        for number in numbers:
            block = of.file_info.message.blocks[number]
            self.parts.passed("key", block.offset, memoryview(body)[block.offset : block.offset + block.size])
        return [part.start for part in self.wrong]


@pytest.mark.parametrize("part_size", [0, 2000, 4000, 6000])
async def test_every_byte_of_blocks_is_checked_in_any_order(part_size: int) -> None:
    of = stored(part_size)
    for place in (0, 1999, 4321, 11063):
        numbers = list(range(len(BLOCKS)))
        random.Random(place).shuffle(numbers)
        assert Served().serve(of, BODY, numbers) == []
        wrong = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
        assert Served().serve(of, wrong, numbers * 2) == [place // (part_size or len(BODY)) * part_size]


async def test_what_has_not_passed_as_a_whole_is_not_checked() -> None:
    served, of = Served(), stored(4000)
    assert served.serve(of, bytes(len(BODY)), [0, 2, 4]) == []
    assert served.serve(of, bytes(len(BODY)), [1]) == [0]


async def test_a_part_is_suspected_once_in_an_hour() -> None:
    served, of = Served(), stored(4000)
    assert served.serve(of, bytes(len(BODY)), [0, 1]) == [0]
    assert served.serve(of, bytes(len(BODY)), [0, 1]) == []
    await asyncio.sleep(3601)
    assert served.serve(of, bytes(len(BODY)), [0, 1]) == [0]


async def test_a_trailer_of_another_size_is_not_guessed() -> None:
    of = stored(0, BODY + b"x")
    assert Served().serve(of, bytes(len(BODY)), list(range(len(BLOCKS)))) == []


async def test_what_is_kept_of_parts_is_bounded() -> None:
    served, of = Served(), stored(2000)
    for number in range(1000):
        served.parts.expect(f"key {number}", of, 0)
    served.serve(of, bytes(len(BODY)), [0])
    served.parts.passed("key 5", 0, memoryview(bytes(2000)))
    assert [part.key for part in served.wrong] == ["key"]


# A folder as a whole


class Reader:
    """A device that reads from a folder."""

    def __init__(self, folder: Folder, bucket: SimulatedBucket) -> None:
        self._folder = folder
        self._responder = Responder(
            bucket,
            Counters(),
            SyncSettings(),
            0,
            on_failure=lambda key, start, size: folder.read_failed(key, start, size),
            on_block=folder.block_read,
        )

    async def read(self, info: FileInfo) -> list[int]:
        """Read all blocks of a file. Return the codes of the answers."""
        codes: list[int] = []

        async def answer(data: memoryview, code: int) -> None:
            codes.append(code)

        for number, block in enumerate(info.message.blocks):
            request = RequestReceived(number, "folder", info.name, block.offset, block.size, block.hash, False)
            requested = await self._folder.requested_block(request, device(2))
            assert requested is not None
            self._responder.submit(requested, answer)
        await asyncio.sleep(1)
        return codes


@contextlib.asynccontextmanager
async def reading(bucket: SimulatedBucket, home: Path) -> AsyncIterator[tuple[Folder, Device, Reader]]:
    """A folder that has FILE from a device, and a device that reads it."""
    folder = new_folder(RECORD, bucket, home)
    await folder.open()
    async with working(folder):
        one = Device(1)
        one.take(FILE)
        one.share(folder)
        await one.announce(folder, 10)
        await asyncio.sleep(1)
        assert has(folder, FILE)
        yield folder, one, Reader(folder, bucket)


def damage(bucket: SimulatedBucket) -> str:
    (key,) = bucket.store.keys(KEYS.objects)
    body = bucket.store.body(key)
    bucket.store.put(key, body[:50] + bytes([body[50] ^ 1]) + body[51:])
    return key


async def test_a_damaged_object_is_taken_back_and_sent_again(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, one, reader):
        key = damage(bucket)
        await reader.read(FILE)
        assert folder.missing_files == 1 and not has(folder, FILE)
        assert list(folder.missing_examples(5)) == [(FILE.name, key)]
        one.share(folder)
        await one.announce(folder, 10)
        await asyncio.sleep(1)
        assert has(folder, FILE) and folder.missing_files == 0
        before = len(bucket.calls)
        assert set(await reader.read(FILE)) == {pb.NO_ERROR}
        assert [call.operation for call in bucket.calls[before:]].count("get") <= 2
        assert has(folder, FILE)


async def test_a_sound_object_is_not_read_again(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, _, reader):
        for _ in range(3):
            await reader.read(FILE)
        reads = [call for call in bucket.calls if call.operation == "get" and call.key.startswith(KEYS.objects)]
        assert len(reads) == 3 and bucket.count("size") == 0
        assert has(folder, FILE)


async def test_an_older_trailer_is_no_damage(tmp_path: Path) -> None:
    """Only metadata have changed: the object has the trailer with which its data came. It is read once in an hour."""
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, one, reader):
        message = pb.FileInfo.FromString(FILE.raw)
        message.version.counters[0].value, message.permissions = 2, 0o600
        touched = parse_file_info(message.SerializeToString())
        one.take(touched)
        await one.announce(folder, 10)
        await asyncio.sleep(1)
        assert has(folder, touched) and len(bucket.store.keys(KEYS.objects)) == 1
        counts = []
        for _ in range(2):
            before = len(bucket.calls)
            await reader.read(touched)
            counts.append(
                sum(call.operation == "get" and call.key.startswith(KEYS.objects) for call in bucket.calls[before:])
            )
        assert has(folder, touched) and folder.missing_files == 0
        assert counts == [2, 1]


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.REFUSED])
async def test_a_store_that_does_not_answer_the_second_look_has_damaged_nothing(fault: Fault, tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, _, reader):
        damage(bucket)
        reads = 0

        def failing(call: object) -> Fault | None:
            nonlocal reads
            reads += 1
            return fault if reads > 1 else None

        bucket.fault = failing
        await reader.read(FILE)
        assert folder.missing_files == 0 and has(folder, FILE)
        bucket.fault = lambda call: None


async def test_wrong_bytes_on_the_way_are_no_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, _, reader):
        key = damage(bucket)
        sound = bucket.store.body(key)[:50] + bytes([bucket.store.body(key)[50] ^ 1]) + bucket.store.body(key)[51:]
        await_reader = asyncio.create_task(reader.read(FILE))
        while bucket.count("get") == 0:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        bucket.store.put(key, sound)
        await await_reader
        await settled()
        assert folder.missing_files == 0 and has(folder, FILE)


async def test_a_directory_beside_it_stays(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    async with reading(bucket, tmp_path) as (folder, one, reader):
        one.take(directory("b"))
        await one.announce(folder, 10)
        await asyncio.sleep(1)
        damage(bucket)
        await reader.read(FILE)
        assert has(folder, directory("b")) and not has(folder, FILE)
