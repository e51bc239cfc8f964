"""Checks one file's object, every byte of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.errors import DataError, DecryptionFailed, NoSuchKey
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.checksums import PartChecksums
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.progress import FileProgress
from untrusted_s3.vault.block_ranges import BlockRange, block_ranges
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.read_pipeline import ReadPipeline


class _Checked(NamedTuple):
    """The ciphertext of a range that was checked."""

    data: bytes
    memory: int


class ObjectCheck:
    """A check that a file's object is whole.

    It exists, is as long as the log says, and has the log's checksums; every block decrypts and has the SHA-256 of the
    real file info; the trailer decrypts and describes the same content.
    """

    def __init__(self, folder: Folder, entry: Entry, stored: StoredObject) -> None:
        self._folder = folder
        self._entry = entry
        self._stored = stored
        self._trailer_at = entry.encrypted.message.size
        self._key = folder.key.file_key(entry.real.name)

    def check_size(self, size: int | None, read_size: int) -> None:
        """Raise DataError unless the object has `size` bytes, or if its trailer is much too long; None: no object."""
        if size is None:
            raise DataError("the object with its data is missing")
        if size != self._stored.size:
            raise DataError(f"the object with its data has {size:,} bytes instead of {self._stored.size:,}")
        # The trailer may be that of an older file info of the same content. It is read as a whole, so a size that
        # somebody made up must not fill the memory.
        if size - self._entry.encrypted.message.size > len(self._entry.encrypted.raw) + read_size:
            raise DataError("the trailer of its object is too long")

    async def run(self, pipeline: ReadPipeline, progress: FileProgress) -> None:
        """Read and check the object. Raises DataError at the first thing that is wrong, or StoreError."""
        checksums = PartChecksums(self._stored)
        ranges = self._ranges(pipeline.read_size)
        async with contextlib.aclosing(pipeline.read(ranges, self._get, self._check)) as results:
            async for checked in results:
                checksums.add(checked.data)
                progress.add(len(checked.data))

    def _ranges(self, read_size: int) -> Iterator[BlockRange]:
        """Yield the object from its beginning to its end; the last range has the trailer, after blocks if it fits."""
        blocks = self._entry.encrypted.message.blocks
        last: BlockRange | None = None
        for item in block_ranges(blocks, 0, len(blocks), read_size):
            if last is not None:
                yield last
            last = item
        trailer = BlockRange(len(blocks), len(blocks), self._trailer_at, self._stored.size - self._trailer_at)
        if last is not None and last.start + last.size == trailer.start and last.size + trailer.size <= read_size:
            yield last._replace(size=last.size + trailer.size)
            return
        if last is not None:
            yield last
        yield trailer

    async def _get(self, wanted: BlockRange) -> bytes:
        try:
            return await self._folder.bucket.get(self._entry.key, wanted.start, wanted.size)
        except NoSuchKey as error:
            raise DataError("the object with its data is missing") from error

    def _check(self, wanted: BlockRange, data: bytes) -> _Checked:
        """Check a range. Called in any thread."""
        view = memoryview(data)
        for number in range(wanted.first, wanted.end):
            inner, outer = self._entry.real.blocks[number], self._entry.encrypted.message.blocks[number]
            begin = outer.offset - wanted.start
            try:
                self._key.decrypt_block(view[begin : begin + outer.size], inner.size, inner.hash)
            except DecryptionFailed as error:
                raise DataError(f"its block at {inner.offset:,} is damaged: {error}") from error
        if wanted.start + wanted.size > self._trailer_at:
            self._check_trailer(data[self._trailer_at - wanted.start :])
        return _Checked(data, len(data))

    def _check_trailer(self, trailer: bytes) -> None:
        found = check_trailer(trailer, self._entry.encrypted)
        try:
            decrypt_file_info(self._folder.key, found)
        except DataError as error:
            raise DataError(f"the trailer of its object is damaged: {error}") from error
