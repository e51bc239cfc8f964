"""The bytes of one object, in order: blocks from a block source or from the previous object, then the trailer."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from untrusted_s3.accounts import Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.store.bucket import Buffer
from untrusted_s3.supervisor import TaskSet

_REQUESTED_AT_ONCE = 32

# A block source: returns the block with a number. Raises BlockUnavailable if it cannot be had now.
FetchBlock = Callable[[int, pb.BlockInfo], Awaitable[memoryview]]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Bytes of the object that arrive together: one block, or consecutive blocks of the previous object."""

    start: int
    end: int
    data: asyncio.Task[memoryview]


@dataclass(frozen=True, slots=True)
class RequestedRange:
    """A range of the object that was requested.

    Attributes:
        start: The offset of its first byte.
        end: The offset after its last byte.
        chunks: What its bytes come in; the first and the last chunk may reach beyond the range.
        trailer: The bytes of the trailer in the range.
    """

    start: int
    end: int
    chunks: tuple[_Chunk, ...]
    trailer: memoryview

    async def pieces(self) -> list[Buffer]:
        """Return the bytes, in order. Raises BlockUnavailable, StoreError or PreviousObjectGone."""
        pieces: list[Buffer] = []
        for chunk in self.chunks:
            data = await chunk.data
            pieces.append(data[max(self.start - chunk.start, 0) : self.end - chunk.start])
        if self.trailer:
            pieces.append(self.trailer)
        return pieces

    def cancel(self) -> None:
        """Cancel what has not arrived."""
        for chunk in self.chunks:
            chunk.data.cancel()


class Assembly:
    """The object of a file.

    Each block is requested once, even if it lies in two ranges. Blocks that `previous` has are read from there, as many
    neighbouring ones at once as `coalesced_get_size` bytes hold. `close` ends what is under way.
    """

    def __init__(
        self,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        previous: PreviousObject | None = None,
        coalesced_get_size: int = 0,
    ) -> None:
        self._blocks = file_info.message.blocks
        self._offsets = [block.offset for block in self._blocks]
        self._data_size = file_info.message.size
        self._trailer = memoryview(encode_trailer(file_info))
        self._fetch_block = fetch_block
        self._previous = previous
        self._coalesced_get_size = coalesced_get_size
        self._last: _Chunk | None = None
        self._tasks = TaskSet()
        self.size = self._data_size + len(self._trailer)

    async def close(self) -> None:
        """Cancel what has not arrived, and wait until it has ended."""
        await self._tasks.cancel()

    def whole_blocks(self, start: int, end: int) -> range | None:
        """Return the numbers of the blocks that a range consists of.

        None if the range cuts a block or holds bytes of the trailer.
        """
        first, last = (bisect.bisect_left(self._offsets, offset) for offset in (start, end))
        is_whole = start < end <= self._data_size and self._offset(first) == start and self._offset(last) == end
        return range(first, last) if is_whole else None

    async def request(self, start: int, end: int) -> RequestedRange:
        """Request the bytes of a range. Others go on meanwhile: a range may have thousands of blocks.

        Ranges must come in order, one after the other. A range that follows a gap must begin where a block begins.
        """
        chunks = []
        position = start
        if self._last is not None and self._last.end > start:
            chunks.append(self._last)
            position = self._last.end
        for chunk in self._chunks(bisect.bisect_left(self._offsets, position), end):
            chunks.append(chunk)
            if len(chunks) % _REQUESTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._last = chunks[-1] if chunks and chunks[-1].end > end else None
        trailer = self._trailer[max(start - self._data_size, 0) : max(end - self._data_size, 0)]
        return RequestedRange(start, end, tuple(chunks), trailer)

    def _chunks(self, number: int, end: int) -> Iterator[_Chunk]:
        """Request the blocks from `number` on that begin before `end`."""
        while number < len(self._offsets) and self._offsets[number] < end:
            first, number = number, self._end_of_run(number, end)
            start, stop = self._offset(first), self._offset(number)
            if self._previous is not None and self._previous.has(first):
                data = self._tasks.start(self._previous.get(start, stop))
            else:
                data = self._tasks.start(self._fetch(first))
            yield _Chunk(start, stop, data)

    def _end_of_run(self, first: int, end: int) -> int:
        """Return the number after the last of the blocks from `first` on that are read at once."""
        number = first + 1
        if self._previous is None or not self._previous.has(first):
            return number
        while (
            number < len(self._offsets)
            and self._offsets[number] < end
            and self._offset(number + 1) - self._offsets[first] <= self._coalesced_get_size
            and self._previous.has(number)
        ):
            number += 1
        return number

    async def _fetch(self, number: int) -> memoryview:
        return await self._fetch_block(number, self._blocks[number])

    def _offset(self, number: int) -> int:
        """Return where a block begins; for the number after the last one, the end of the data."""
        return self._offsets[number] if number < len(self._offsets) else self._data_size


async def patiently(requested: RequestedRange, memory: Share, patience: float) -> list[Buffer]:
    """Return the bytes of a range for which `memory` is held.

    The range is given up if its device holds more memory than its part while others wait for some, and the blocks are
    not there after `patience` seconds. Raises BlockUnavailable, StoreError or PreviousObjectGone.
    """
    while waiting := [chunk.data for chunk in requested.chunks if not chunk.data.done()]:
        done, missing = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_EXCEPTION)
        for data in done:
            data.result()
        if missing and memory.overdrawn:
            raise BlockUnavailable(f"not here within {patience:.0f} s, and other devices wait for the memory")
    return await requested.pieces()
