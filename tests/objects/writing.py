"""An object writer over a simulated bucket, and a block source that the test controls."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Container

import crc32c

from tests.simulated import SimulatedBucket, SimulatedStore
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.layout import FolderKeys

KEYS = FolderKeys.of("folder")
PART = 4096
GRID = PartGrid(single_put_size=4000, min_part_size=PART)


def block_data(file_info: FileInfo, number: int, peer: str = "") -> bytes:
    block = file_info.message.blocks[number]
    return hashlib.shake_128(f"{peer} {file_info.name} {number}".encode()).digest(block.size)


def object_body(file_info: FileInfo, peer: str = "") -> bytes:
    """Return the object that the format defines: the blocks in order, the file info, its length."""
    blocks = b"".join(block_data(file_info, number, peer) for number in range(len(file_info.message.blocks)))
    return blocks + file_info.raw + len(file_info.raw).to_bytes(4, "big")


def object_key(file_info: FileInfo) -> str:
    return KEYS.object(file_info.name, content_hash(file_info))


class Writing:
    """Call it to write a file's object.

    Attributes:
        fetched: How often each block was requested.
        missing: The numbers of the blocks that the source does not have.
        before_block: Called when a block is requested.
        superseded: Whether the content is no longer wanted.
        owner: Whom the memory is counted for.
    """

    def __init__(
        self,
        bucket: SimulatedBucket | None = None,
        memory: int = 3 * PART,
        settings: ObjectSettings | None = None,
        grid: PartGrid = GRID,
    ) -> None:
        self.bucket = bucket or SimulatedBucket()
        self.memory = Account(memory)
        self.uploads = UploadLimits(AdaptiveLimit(2, 2), AdaptiveLimit(4, 4))
        self.counters = Counters()
        self.writer = ObjectWriter(
            self.bucket, KEYS, self.memory, self.uploads, self.counters, settings or ObjectSettings(), grid
        )
        self.fetched: Counter[int] = Counter()
        self.missing: set[int] = set()
        self.before_block: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.superseded = False
        self.owner = "device"

    async def __call__(
        self, file_info: FileInfo, before: Entry | None = None, condemned: Container[str] = ()
    ) -> StoredObject:
        async def fetch_block(number: int, block: pb.BlockInfo) -> memoryview:
            assert block == file_info.message.blocks[number]
            self.fetched[number] += 1
            await self.before_block()
            if number in self.missing:
                raise BlockUnavailable(f"block {number}")
            return memoryview(self.block(file_info, number))

        return await self.writer.write(
            file_info, fetch_block, before, lambda: self.superseded, owner=self.owner, condemned=condemned
        )

    def block(self, file_info: FileInfo, number: int) -> bytes:
        """Return what the block source has for a block."""
        return block_data(file_info, number)

    def counter(self, name: str) -> int:
        """Return the value of one of the gateway's counters."""
        value = self.counters.registry.get_sample_value(f"untrusted_s3_{name}_total")
        assert value is not None
        return int(value)

    def check_all_is_released(self) -> None:
        """Check that an ended call holds nothing and that nothing runs, however the call ended."""
        assert self.memory.used == 0
        assert self.uploads.objects.in_flight == self.uploads.parts.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


def check_stored(store: SimulatedStore, file_info: FileInfo, stored: StoredObject, part_size: int) -> None:
    body = store.body(object_key(file_info))
    assert body == object_body(file_info)
    step = part_size or len(body)
    checksums = tuple(crc32c.crc32c(body[start : start + step]) for start in range(0, len(body), step))
    assert stored == StoredObject(content_hash(file_info), len(body), part_size, checksums)
