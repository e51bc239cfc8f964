"""Reads files from the store: blocks in order, decrypted, and checked against the SHA-256 in the real file info."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from untrusted_s3.crypto.file_key import FileKey
from untrusted_s3.errors import BlockDamaged, DecryptionFailed, NoSuchKey, StoreRefused, StoreUnreachable, UsageError
from untrusted_s3.settings import ReadSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.vault.block_ranges import BlockRange, block_ranges
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.read_pipeline import ReadPipeline


class Block(NamedTuple):
    """Some bytes of a plain file.

    Attributes:
        offset: Where they begin in the file.
        data: The bytes.
    """

    offset: int
    data: bytes


class BlockReader:
    """Reads files of one folder, any number at once, in bounded memory and with one set of threads.

    An asynchronous context manager.

    Attributes:
        folder: The folder.
        settings: How files are read.
    """

    def __init__(self, folder: Folder, settings: ReadSettings | None = None) -> None:
        """Make a reader. Each file that is being read may use memory for one range beyond the memory of `settings`."""
        self.settings = settings if settings is not None else ReadSettings()
        self.folder = folder
        self._pipeline = ReadPipeline(self.settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self._pipeline.close()

    @property
    def memory_used(self) -> int:
        """The bytes that are on their way or wait to be taken."""
        return self._pipeline.memory_used

    async def read(self, entry: Entry, offset: int = 0, size: int | None = None) -> bytes:
        """Return `size` bytes of a file from `offset`, or all to its end; fewer if the file ends before.

        Raises BlockDamaged, StoreError or UsageError, as `blocks` does.
        """
        end = None if size is None else offset + size
        return b"".join([block.data async for block in self.blocks(entry, offset, end)])

    async def blocks(self, entry: Entry, start: int = 0, end: int | None = None) -> AsyncGenerator[Block, None]:
        """Yield the bytes of a file from `start` (0 or more) to `end` (not included), block by block in order.

        The first and the last may be parts of blocks. Iterate to the end or close the iterator
        (`contextlib.aclosing`): it holds memory for what it has read ahead. Raises BlockDamaged at the first damaged
        block, after all before it; reading may begin again behind it. Raises StoreError, and UsageError if the entry is
        not a file that exists.
        """
        if not entry.encrypted.has_data:
            what = "was deleted" if entry.deleted else f"is a {entry.kind}"
            raise UsageError(f"{entry.path!r} {what}: there is nothing to read")
        file = _EncryptedFile(self.folder.bucket, entry, self.folder.key.file_key(entry.real.name))
        ranges = file.ranges(start, entry.real.size if end is None else end, self._pipeline.read_size)
        async with contextlib.aclosing(self._pipeline.read(ranges, file.get, file.decrypt)) as results:
            async for result in results:
                for block in result.blocks:
                    yield _cut(block, start, end)
                if result.error is not None:
                    raise result.error


class _Decrypted(NamedTuple):
    """The blocks of a range up to the first damaged one, their bytes, and what is wrong with the damaged one."""

    blocks: list[Block]
    memory: int
    error: BlockDamaged | None


class _EncryptedFile:
    """One file's object, and how its blocks are found and decrypted."""

    def __init__(self, bucket: Bucket, entry: Entry, key: FileKey) -> None:
        self._bucket = bucket
        self._entry = entry
        self._key = key
        self._inner = entry.real.blocks
        self._outer = entry.encrypted.message.blocks

    def ranges(self, start: int, end: int, read_size: int) -> Iterator[BlockRange]:
        """Yield the ranges of blocks that hold the plain bytes from `start` to `end` (not included)."""
        end = min(end, self._entry.real.size)
        if start >= end:
            return iter(())
        first = bisect.bisect_right(self._inner, start, key=lambda block: block.offset) - 1
        after = bisect.bisect_left(self._inner, end, key=lambda block: block.offset)
        return block_ranges(self._outer, first, after, read_size)

    async def get(self, wanted: BlockRange) -> bytes:
        path, offset = self._entry.path, self._inner[wanted.first].offset
        try:
            return await self._bucket.get(self._entry.key, wanted.start, wanted.size)
        except NoSuchKey as error:
            raise BlockDamaged(path, offset, "the object with its data is missing") from error
        except (StoreRefused, StoreUnreachable) as error:  # stores differ in how they answer beyond the end
            try:
                size = await self._bucket.size(self._entry.key)
            except StoreRefused:
                raise error from None
            if size is not None and size < wanted.start + wanted.size:
                raise BlockDamaged(path, offset, "the object with its data is cut short") from error
            raise

    def decrypt(self, wanted: BlockRange, data: bytes) -> _Decrypted:
        """Decrypt and check the blocks of a range. Called in any thread."""
        blocks: list[Block] = []
        size = 0
        view = memoryview(data)
        for number in range(wanted.first, wanted.end):
            inner, outer = self._inner[number], self._outer[number]
            begin = outer.offset - wanted.start
            try:
                plain = self._key.decrypt_block(view[begin : begin + outer.size], inner.size, inner.hash)
            except DecryptionFailed as error:
                return _Decrypted(blocks, size, BlockDamaged(self._entry.path, inner.offset, str(error)))
            blocks.append(Block(inner.offset, plain))
            size += len(plain)
        return _Decrypted(blocks, size, None)


def _cut(block: Block, start: int, end: int | None) -> Block:
    """Return the part of a block between `start` and `end`."""
    skip = max(start - block.offset, 0)
    stop = len(block.data) if end is None else min(end - block.offset, len(block.data))
    if skip == 0 and stop == len(block.data):
        return block
    return Block(block.offset + skip, block.data[skip:stop])
