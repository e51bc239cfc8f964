"""A file puller over a simulated bucket, for the tests of pulls."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable

import crc32c

from tests.simulated import SimulatedBucket, SimulatedStore
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.segment import Entry, StoredObject
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.writer import FilePuller
from untrusted_s3.store.layout import FolderKeys

KEYS = FolderKeys.of("folder")
PART = 4096


def block_data(file_info: FileInfo, number: int, peer: str = "") -> bytes:
    block = file_info.message.blocks[number]
    return hashlib.shake_128(f"{peer} {file_info.name} {number}".encode()).digest(block.size)


def object_body(file_info: FileInfo, peer: str = "") -> bytes:
    """What the format says: the blocks in order, the file info, its length."""
    blocks = b"".join(block_data(file_info, number, peer) for number in range(len(file_info.message.blocks)))
    return blocks + file_info.raw + len(file_info.raw).to_bytes(4, "big")


def object_key(file_info: FileInfo) -> str:
    return KEYS.object(file_info.name, content_hash(file_info))


class Pull:
    """A file puller over a simulated bucket, and a peer that gives blocks."""

    def __init__(self, bucket: SimulatedBucket | None = None, budget: int = 3 * PART) -> None:
        self.bucket = bucket or SimulatedBucket()
        self.budget = ByteBudget(budget)
        self.uploads = asyncio.Semaphore(2)
        self.fetched: Counter[int] = Counter()
        self.missing: set[int] = set()
        self.before_block: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.most_used = 0
        self.superseded = False
        self.counters = Counters()
        self.puller = FilePuller(self.bucket, KEYS, self.budget, self.uploads, self.counters)

    async def __call__(self, file_info: FileInfo, before: Entry | None = None) -> StoredObject:
        async def fetch_block(number: int, block: pb.BlockInfo) -> memoryview:
            assert block == file_info.message.blocks[number]
            self.fetched[number] += 1
            self.most_used = max(self.most_used, self.budget.used)
            await self.before_block()
            if number in self.missing:
                raise BlockUnavailable(f"block {number}")
            return memoryview(block_data(file_info, number))

        return await self.puller.pull(file_info, fetch_block, before, lambda: self.superseded)

    async def check_all_is_given_back(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        assert self.budget.used == 0
        assert not self.uploads.locked()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def check_stored(store: SimulatedStore, file_info: FileInfo, stored: StoredObject, part_size: int) -> None:
    body = store.body(object_key(file_info))
    assert body == object_body(file_info)
    step = part_size or len(body)
    checksums = tuple(crc32c.crc32c(body[start : start + step]) for start in range(0, len(body), step))
    assert stored == StoredObject(content_hash(file_info), len(body), part_size, checksums)
