"""Reads files from the store: blocks in order, decrypted, and checked against the SHA-256 in the real file info.

A range of the object that holds many blocks is one GET; several are under way at a time, ahead of whoever reads. What
is large is decrypted in threads, for the cryptography lets go of Python's lock.
"""

from __future__ import annotations

import asyncio
import bisect
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from untrusted_s3 import limits
from untrusted_s3.byte_budget import BudgetShare, SharedBudget
from untrusted_s3.crypto.file_key import FileKey
from untrusted_s3.errors import BlockDamaged, DecryptionFailed, NoSuchKey, StoreRefused, StoreUnreachable, UsageError
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import Folder


class Block(NamedTuple):
    """Some bytes of a plain file, and where they begin in it."""

    offset: int
    data: bytes


class BlockReader:
    """Reads files of one folder, any number at a time, within one budget of memory and with one set of threads."""

    def __init__(self, folder: Folder, memory: int | None = None, threads: int | None = None) -> None:
        """`memory` is for data on its way, in bytes; each file that is being read may have one range more than that.
        `threads` are as many as there are cores where nothing is said."""
        self._folder = folder
        self._budget = SharedBudget(memory or limits.DEFAULT_READ_MEMORY)
        self._gets = asyncio.Semaphore(limits.CONCURRENT_READS)
        self._threads = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="decrypt")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def memory_used(self) -> int:
        """Bytes that are on their way, or wait to be taken."""
        return self._budget.used

    async def read(self, entry: Entry, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of a file from `offset`, or all to its end; fewer where the file ends before. Raises as
        `blocks`."""
        end = None if size is None else offset + size
        return b"".join([block.data async for block in self.blocks(entry, offset, end)])

    async def blocks(self, entry: Entry, start: int = 0, end: int | None = None) -> AsyncGenerator[Block, None]:
        """The bytes of a file from `start` (0 or more) to `end` (not included), block by block in order.

        The first and the last one may be parts of blocks. Read on, or close the iterator (`contextlib.aclosing`): it
        holds memory for what it has read ahead. Raises BlockDamaged at the first damaged block, after all before it;
        reading may then begin again behind it. Raises StoreError, and UsageError for what is no regular file.
        """
        if not entry.encrypted.has_data:
            what = "was deleted" if entry.deleted else f"is a {entry.kind}"
            raise UsageError(f"{entry.path!r} {what}: there is nothing to read")
        reading = _Reading(entry, self._folder.key.file_key(entry.path))
        ranges = reading.ranges(start, entry.real.size if end is None else min(end, entry.real.size))
        share = self._budget.share(self._budget.total)
        ahead: deque[asyncio.Task[_Decrypted]] = deque()
        try:
            while True:
                for wanted in ranges:
                    ahead.append(asyncio.create_task(self._fetch(reading, wanted, share)))
                    if len(ahead) == limits.READ_AHEAD:
                        break
                if not ahead:
                    return
                found = await ahead.popleft()
                try:
                    for block in found.blocks:
                        yield _cut(block, start, end)
                    if found.error is not None:
                        raise found.error
                finally:
                    share.release(found.size)
        finally:
            for task in ahead:
                task.cancel()
            for result in await asyncio.gather(*ahead, return_exceptions=True):
                if isinstance(result, _Decrypted):
                    share.release(result.size)

    async def _fetch(self, reading: _Reading, wanted: _Range, share: BudgetShare) -> _Decrypted:
        held = 2 * wanted.size
        await share.acquire(held)
        try:
            async with self._gets:
                data = await self._get(reading.entry, wanted)
            if wanted.size <= limits.SMALL_READ_SIZE:
                found = reading.decrypt(wanted, data)
            else:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(self._threads, reading.decrypt, wanted, data)
        except BaseException:
            share.release(held)
            raise
        share.release(held - found.size)
        return found

    async def _get(self, entry: Entry, wanted: _Range) -> bytes:
        try:
            return await self._folder.bucket.get(entry.key, wanted.start, wanted.size)
        except NoSuchKey as error:
            raise BlockDamaged(entry.path, wanted.offset, "the object with its data is missing") from error
        except (StoreRefused, StoreUnreachable) as error:  # as stores answer to what is not there
            size = await self._folder.bucket.size(entry.key)
            if size is not None and size < wanted.start + wanted.size:
                raise BlockDamaged(entry.path, wanted.offset, "the object with its data is cut short") from error
            raise


class _Range(NamedTuple):
    """Consecutive blocks, `first` to `end` (not included): `size` bytes of the object from `start` on. `offset` is
    where they begin in the plain file."""

    first: int
    end: int
    start: int
    size: int
    offset: int


class _Decrypted(NamedTuple):
    """The blocks up to the first damaged one, and what is wrong with that; `size` is their bytes."""

    blocks: list[Block]
    size: int
    error: BlockDamaged | None


class _Reading:
    """One file, and how its blocks are found and decrypted."""

    def __init__(self, entry: Entry, key: FileKey) -> None:
        self.entry = entry
        self._key = key
        self._inner = entry.real.blocks
        self._outer = entry.encrypted.message.blocks

    def ranges(self, start: int, end: int) -> Iterator[_Range]:
        """What to read for the plain bytes from `start` to `end` (not included): ranges of at most limits.READ_SIZE, or
        of one block."""
        if start >= end:
            return
        first = bisect.bisect_right(self._inner, start, key=lambda block: block.offset) - 1
        while first < len(self._inner) and self._inner[first].offset < end:
            begin = self._outer[first].offset
            last = first
            while (
                last + 1 < len(self._inner)
                and self._inner[last + 1].offset < end
                and self._outer[last + 1].offset + self._outer[last + 1].size - begin <= limits.READ_SIZE
            ):
                last += 1
            size = self._outer[last].offset + self._outer[last].size - begin
            yield _Range(first, last + 1, begin, size, self._inner[first].offset)
            first = last + 1

    def decrypt(self, wanted: _Range, data: bytes) -> _Decrypted:
        """Decrypts and checks the blocks of a range. Runs in any thread."""
        blocks: list[Block] = []
        size = 0
        view = memoryview(data)
        for number in range(wanted.first, wanted.end):
            inner, outer = self._inner[number], self._outer[number]
            begin = outer.offset - wanted.start
            try:
                plain = self._key.decrypt_block(view[begin : begin + outer.size], inner.size, inner.hash)
            except DecryptionFailed as error:
                return _Decrypted(blocks, size, BlockDamaged(self.entry.path, inner.offset, str(error)))
            blocks.append(Block(inner.offset, plain))
            size += len(plain)
        return _Decrypted(blocks, size, None)


def _cut(block: Block, start: int, end: int | None) -> Block:
    """The part of a block between `start` and `end`."""
    skip = max(start - block.offset, 0)
    stop = len(block.data) if end is None else min(end - block.offset, len(block.data))
    if skip == 0 and stop == len(block.data):
        return block
    return Block(block.offset + skip, block.data[skip:stop])
