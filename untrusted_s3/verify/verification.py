"""Whether the files of a folder are whole: every byte of their objects, without writing anything anywhere."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import crc32c

from untrusted_s3 import limits
from untrusted_s3.byte_budget import SharedBudget
from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.errors import DataError, DecryptionFailed, NoSuchKey
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.problem import Problem
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.progress import FileProgress, Progress


@dataclass(slots=True)
class VerifyReport:
    """What was looked at: files and bytes of their objects, entries without data; and what is wrong, each named by its
    plain path, or by its encrypted name where that is not known."""

    files: int = 0
    bytes: int = 0
    others: int = 0
    damaged: list[Problem] = field(default_factory=list)


def sample(
    entries: Iterable[Entry | DamagedEntry], share: float, files: int, seed: int
) -> Iterator[Entry | DamagedEntry]:
    """A random share (0 to 1) of about so many files, at least one; all of what is no file. Equal for an equal seed."""
    chosen = set(random.Random(seed).sample(range(files), math.ceil(files * share)))  # noqa: S311
    number = 0
    for entry in entries:
        is_file = isinstance(entry, Entry) and entry.kind is Kind.FILE
        if not is_file or number in chosen:
            yield entry
        number += is_file


class Verification:
    """Reads objects and compares them with the log and with what is encrypted in it."""

    def __init__(
        self, folder: Folder, progress: Progress, memory: int | None = None, *, list_objects: bool = False
    ) -> None:
        """`memory` is for data on its way, in bytes. With `list_objects` the sizes of all objects come from a listing,
        which is right where most of them are looked at."""
        self.report = VerifyReport()
        self._folder = folder
        self._progress = progress
        self._sizes = ObjectSizes(folder.keys.objects) if list_objects else None
        self._budget = SharedBudget(memory or limits.DEFAULT_READ_MEMORY)
        self._large_files = asyncio.Semaphore(limits.CONCURRENT_LARGE_FILES_RESTORED)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="verify")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._sizes is not None:
            self._sizes.close()

    async def run(self, entries: Iterable[Entry | DamagedEntry]) -> VerifyReport:
        """Looks at all of them, many at a time. Raises StoreError where the store cannot be reached or refuses."""
        if self._sizes is not None:
            await self._sizes.load(self._folder.bucket)
        waiting = iter(entries)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(limits.CONCURRENT_FILES_RESTORED):
                    tasks.create_task(self._work(waiting))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        self.report.damaged.sort(key=lambda problem: problem.path)
        return self.report

    async def _work(self, entries: Iterator[Entry | DamagedEntry]) -> None:
        for entry in entries:
            if isinstance(entry, DamagedEntry):
                self.report.damaged.append(Problem(entry.path or entry.encrypted_name, entry.reason))
            elif entry.kind is not Kind.FILE:
                self.report.others += 1  # all there is of it was decrypted
            else:
                await self._verify_file(entry)
            await asyncio.sleep(0)

    async def _verify_file(self, entry: Entry) -> None:
        counted = self._progress.begin(entry.encrypted.message.size)
        assert entry.stored is not None
        check = _ObjectCheck(self._folder, entry, entry.stored, self._budget, self._threads)
        try:
            check.check_size(await self._size_of(entry.key))
            if entry.stored.size <= limits.READ_SIZE:
                await check.run(counted)
            else:
                async with self._large_files:
                    await check.run(counted)
        except DataError as error:
            self.report.damaged.append(Problem(entry.path, str(error)))
        self.report.files += 1
        self.report.bytes += entry.stored.size
        counted.end()

    async def _size_of(self, key: str) -> int | None:
        return await self._folder.bucket.size(key) if self._sizes is None else self._sizes.get(key)


class _Piece(NamedTuple):
    """Bytes of an object from `start` on that are read at once: blocks `first` to `end` (not included), or, where that
    is empty, the trailer."""

    start: int
    size: int
    first: int
    end: int


class _ObjectCheck:
    """One file: its object is there, as long as the log says, and has the log's checksums; every block decrypts and has
    the SHA-256 of the real file info; the trailer decrypts and speaks of the same content."""

    def __init__(
        self, folder: Folder, entry: Entry, stored: StoredObject, budget: SharedBudget, threads: ThreadPoolExecutor
    ) -> None:
        self._folder = folder
        self._entry = entry
        self._stored = stored
        self._key = folder.key.file_key(entry.path)
        self._share = budget.share(budget.total)
        self._threads = threads

    async def run(self, progress: FileProgress) -> None:
        """Raises DataError at the first thing that is wrong, and StoreError."""
        checksums = _PartChecksums(self._stored)
        pieces = self._pieces()
        ahead: deque[asyncio.Task[bytes]] = deque()
        try:
            while True:
                for piece in pieces:
                    ahead.append(asyncio.create_task(self._read(piece)))
                    if len(ahead) == limits.READ_AHEAD:
                        break
                if not ahead:
                    return
                data = await ahead.popleft()
                checksums.add(data)
                progress.add(len(data))
                self._share.release(2 * len(data))
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
            self._share.release(self._share.used)

    def check_size(self, size: int | None) -> None:
        """Raises DataError unless the object has that many bytes; None stands for no object."""
        if size is None:
            raise DataError("the object with its data is missing")
        if size != self._stored.size:
            raise DataError(f"the object with its data has {size:,} bytes instead of {self._stored.size:,}")
        # An older file info of the same content; whoever writes to the store shall not fill our memory.
        if size - self._entry.encrypted.message.size > len(self._entry.encrypted.raw) + limits.READ_SIZE:
            raise DataError("the trailer of its object is too long")

    def _pieces(self) -> Iterator[_Piece]:
        """The object from its beginning to its end."""
        blocks = self._entry.encrypted.message.blocks
        first = 0
        for number, block in enumerate(blocks):
            start = blocks[first].offset
            end = block.offset + block.size
            if number + 1 == len(blocks) or end + blocks[number + 1].size - start > limits.READ_SIZE:
                yield _Piece(start, end - start, first, number + 1)
                first = number + 1
        end = self._entry.encrypted.message.size
        yield _Piece(end, self._stored.size - end, 0, 0)

    async def _read(self, piece: _Piece) -> bytes:
        await self._share.acquire(2 * piece.size)
        try:
            data = await self._folder.bucket.get(self._entry.key, piece.start, piece.size)
        except NoSuchKey as error:
            raise DataError("the object with its data is missing") from error
        if piece.size <= limits.SMALL_READ_SIZE:
            self._check(piece, data)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._check, piece, data)
        return data

    def _check(self, piece: _Piece, data: bytes) -> None:
        """Runs in any thread."""
        if piece.first == piece.end:
            self._check_trailer(data)
        view = memoryview(data)
        for number in range(piece.first, piece.end):
            inner, outer = self._entry.real.blocks[number], self._entry.encrypted.message.blocks[number]
            begin = outer.offset - piece.start
            try:
                self._key.decrypt_block(view[begin : begin + outer.size], inner.size, inner.hash)
            except DecryptionFailed as error:
                raise DataError(f"its block at {inner.offset:,} is damaged: {error}") from error

    def _check_trailer(self, trailer: bytes) -> None:
        found = check_trailer(trailer, self._entry.encrypted)
        try:
            decrypt_file_info(self._folder.key, found)
        except DataError as error:
            raise DataError(f"the trailer of its object is damaged: {error}") from error


class _PartChecksums:
    """Compares an object's bytes, given in order, with the CRC-32C of its parts in the log."""

    def __init__(self, stored: StoredObject) -> None:
        """Raises DataError where the log has not one for each part."""
        self._expected = stored.part_crc32c
        self._part_size = stored.part_size or stored.size
        self._left = stored.size
        self._in_part = min(self._part_size, self._left)
        self._number = 0
        self._checksum = 0
        parts = -(-stored.size // self._part_size)
        if parts != len(self._expected):
            raise DataError(f"the log has {len(self._expected)} checksums for the {parts} parts of its object")

    def add(self, data: bytes) -> None:
        """The next bytes. Raises DataError at the end of a part that differs."""
        view = memoryview(data)
        while view:
            piece = view[: self._in_part]
            view = view[len(piece) :]
            self._checksum = crc32c.crc32c(piece, self._checksum)
            self._in_part -= len(piece)
            self._left -= len(piece)
            if self._in_part == 0:
                if self._checksum != self._expected[self._number]:
                    raise DataError(f"part {self._number + 1} of its object differs from the checksum in the log")
                self._number += 1
                self._checksum = 0
                self._in_part = min(self._part_size, self._left)
