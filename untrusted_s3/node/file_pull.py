"""Brings one file from peers into the store: blocks are requested in order and leave again part by part, so that no
more than some parts of a file are ever in memory."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, name_hash
from untrusted_s3.errors import PreconditionFailed, StoreError
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.index.stored_object import crc32c_of, read_stored_object
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.store.bucket import Bucket, Buffer
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.multipart import part_ranges, part_size

# Gets one block, given its number; raises BlockUnavailable where no peer has it.
FetchBlock = Callable[[int, pb.BlockInfo], Awaitable[memoryview]]


class FilePuller:
    """Pulls files of one folder. `budget` bounds the bytes of blocks in memory, `uploads` the PUTs of small files at
    a time; of large parts only a few are sent at once, for more would not be faster."""

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, budget: ByteBudget, uploads: asyncio.Semaphore, counters: Counters
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._budget = budget
        self._uploads = uploads
        self._part_uploads = asyncio.Semaphore(limits.CONCURRENT_PART_UPLOADS)
        self._counters = counters

    async def pull(self, file_info: FileInfo, fetch_block: FetchBlock) -> StoredObject:
        """Fetches all blocks and writes the object; what is complete in the store already is not fetched again.

        Raises BlockUnavailable or StoreError; nothing half done stays behind but what a bucket's lifecycle removes.
        """
        content_hash = file_info.content_hash()
        key = self._keys.object(name_hash(file_info.name), content_hash)
        size = part_size(file_info.message.size)
        try:
            if size == 0:
                stored = await self._single_put(key, file_info, content_hash, fetch_block)
            elif await self._bucket.size(key) is None:
                stored = await self._multipart_upload(key, size, file_info, content_hash, fetch_block)
            else:
                return await read_stored_object(self._bucket, key, file_info)
        except PreconditionFailed:
            # A gateway before us, perhaps we ourselves before a crash, has written this content and not named it yet.
            return await read_stored_object(self._bucket, key, file_info)
        self._counters.objects_written.inc()
        self._counters.object_bytes_written.inc(stored.size)
        return stored

    async def _single_put(
        self, key: str, file_info: FileInfo, content_hash: str, fetch_block: FetchBlock
    ) -> StoredObject:
        pull = _Assembly(file_info, fetch_block)
        await self._budget.acquire(pull.size)
        try:
            pieces = await pull.pieces(0, pull.size)
            async with self._uploads:
                await self._bucket.put(key, pieces, if_none_match=True)
        finally:
            pull.cancel()
            self._budget.release(pull.size)
        return StoredObject(content_hash, pull.size, 0, (crc32c_of(pieces),))

    async def _multipart_upload(
        self, key: str, size: int, file_info: FileInfo, content_hash: str, fetch_block: FetchBlock
    ) -> StoredObject:
        pull = _Assembly(file_info, fetch_block)
        upload_id = await self._bucket.create_multipart_upload(key)
        parts: list[asyncio.Task[tuple[str, int]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for number, (start, end) in enumerate(part_ranges(pull.size, size), 1):
                    # Only a part whose memory is granted as a whole may begin, so every part that began can finish.
                    await self._budget.acquire(end - start)
                    pull.request(start, end)
                    part = group.create_task(self._part(key, upload_id, number, pull, start, end))
                    part.add_done_callback(partial(self._release, end - start))
                    parts.append(part)
            etags = [part.result()[0] for part in parts]
            await self._bucket.complete_multipart_upload(key, upload_id, etags)
        except BaseException as error:
            pull.cancel()
            with contextlib.suppress(StoreError):  # what cannot be dropped now is the bucket's lifecycle's
                await asyncio.shield(self._bucket.abort_multipart_upload(key, upload_id))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error
            raise
        return StoredObject(content_hash, pull.size, size, tuple(part.result()[1] for part in parts))

    async def _part(
        self, key: str, upload_id: str, number: int, pull: _Assembly, start: int, end: int
    ) -> tuple[str, int]:
        pieces = await pull.pieces(start, end)
        async with self._part_uploads:
            etag = await self._bucket.upload_part(key, upload_id, number, pieces)
        return etag, crc32c_of(pieces)

    def _release(self, size: int, task: asyncio.Task[tuple[str, int]]) -> None:
        self._budget.release(size)


class _Assembly:
    """The bytes of one object as they come in: each block is fetched once, though two parts may share it."""

    def __init__(self, file_info: FileInfo, fetch_block: FetchBlock) -> None:
        self._blocks = file_info.message.blocks
        self._offsets = [block.offset for block in self._blocks]
        self._data_size = file_info.message.size
        self._trailer = memoryview(file_info.trailer())
        self._fetch_block = fetch_block
        self._fetches: dict[int, asyncio.Task[memoryview]] = {}
        self._taken: dict[int, int] = {}
        self._requested = 0
        self.size = self._data_size + len(self._trailer)

    def request(self, start: int, end: int) -> None:
        """Begins to fetch the blocks of the range that are not under way; ranges must come in order."""
        while self._requested < len(self._offsets) and self._offsets[self._requested] < end:
            number = self._requested
            self._fetches[number] = asyncio.create_task(self._fetch(number))
            self._requested += 1

    async def pieces(self, start: int, end: int) -> list[Buffer]:
        """The bytes of the range, in order; each range may be taken once."""
        self.request(start, end)
        pieces: list[Buffer] = []
        number = bisect.bisect_right(self._offsets, start) - 1
        while start < min(end, self._data_size):
            offset = self._offsets[number]
            block = await self._fetches[number]
            piece = block[start - offset : end - offset]
            pieces.append(piece)
            self._forget_when_taken(number, len(piece), len(block))
            start += len(piece)
            number += 1
        if end > self._data_size:
            pieces.append(self._trailer[start - self._data_size : end - self._data_size])
        return pieces

    def cancel(self) -> None:
        """Gives up what is still under way."""
        for fetch in self._fetches.values():
            fetch.cancel()
            fetch.add_done_callback(_retrieve)

    async def _fetch(self, number: int) -> memoryview:
        return await self._fetch_block(number, self._blocks[number])

    def _forget_when_taken(self, number: int, size: int, block_size: int) -> None:
        taken = self._taken.pop(number, 0) + size
        if taken < block_size:
            self._taken[number] = taken
        else:
            del self._fetches[number]


def _retrieve(task: asyncio.Task[memoryview]) -> None:
    if not task.cancelled():
        task.exception()
