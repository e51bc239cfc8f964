"""The bytes of one object as they come in: blocks from peers, or from the object of the version before, and the
trailer."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.store.bucket import Buffer

# Gets one block, given its number; raises BlockUnavailable where no peer has it.
FetchBlock = Callable[[int, pb.BlockInfo], Awaitable[memoryview]]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Bytes of the object that come in together: one block, or a run of unchanged ones."""

    start: int
    end: int
    data: asyncio.Task[memoryview]


@dataclass(frozen=True, slots=True)
class RequestedRange:
    """A range of the object that was asked for."""

    start: int
    end: int
    chunks: tuple[_Chunk, ...]
    trailer: memoryview

    async def pieces(self) -> list[Buffer]:
        """The bytes, in order. Raises BlockUnavailable, StoreError, or PreviousObjectGone."""
        pieces: list[Buffer] = []
        for chunk in self.chunks:
            data = await chunk.data
            pieces.append(data[max(self.start - chunk.start, 0) : self.end - chunk.start])
        if self.trailer:
            pieces.append(self.trailer)
        return pieces

    def cancel(self) -> None:
        """Gives up what is still under way."""
        for chunk in self.chunks:
            chunk.data.cancel()


class Assembly:
    """The object of `file_info`. Each block is asked for once, though two ranges may share it; those that `previous`
    has too are read there."""

    def __init__(self, file_info: FileInfo, fetch_block: FetchBlock, previous: PreviousObject | None = None) -> None:
        self._blocks = file_info.message.blocks
        self._offsets = [block.offset for block in self._blocks]
        self._data_size = file_info.message.size
        self._trailer = memoryview(encode_trailer(file_info))
        self._fetch_block = fetch_block
        self._previous = previous
        self._last: _Chunk | None = None
        self.size = self._data_size + len(self._trailer)

    def whole_blocks(self, start: int, end: int) -> range | None:
        """The numbers of the blocks that make up a range; None where it cuts a block, or has bytes of the trailer."""
        first, last = (bisect.bisect_left(self._offsets, offset) for offset in (start, end))
        is_whole = start < end <= self._data_size and self._offset(first) == start and self._offset(last) == end
        return range(first, last) if is_whole else None

    def request(self, start: int, end: int) -> RequestedRange:
        """Asks for the bytes of a range. Ranges must come in order; where one is left out, the next must begin with a
        block of its own."""
        chunks = []
        position = start
        if self._last is not None and self._last.end > start:
            chunks.append(self._last)
            position = self._last.end
        for chunk in self._chunks(bisect.bisect_left(self._offsets, position), end):
            chunk.data.add_done_callback(_retrieve)
            chunks.append(chunk)
        self._last = chunks[-1] if chunks and chunks[-1].end > end else None
        trailer = self._trailer[max(start - self._data_size, 0) : max(end - self._data_size, 0)]
        return RequestedRange(start, end, tuple(chunks), trailer)

    def _chunks(self, number: int, end: int) -> Iterator[_Chunk]:
        """Asks for the blocks from `number` on that begin before `end`."""
        while number < len(self._offsets) and self._offsets[number] < end:
            first, number = number, self._end_of_run(number, end)
            start, stop = self._offset(first), self._offset(number)
            if self._previous is not None and self._previous.has(first):
                data = asyncio.create_task(self._previous.get(start, stop))
            else:
                data = asyncio.create_task(self._fetch(first))
            yield _Chunk(start, stop, data)

    def _end_of_run(self, first: int, end: int) -> int:
        """The number after the last of the blocks from `first` on that are read in one piece."""
        number = first + 1
        if self._previous is None or not self._previous.has(first):
            return number
        while (
            number < len(self._offsets)
            and self._offsets[number] < end
            and self._offset(number + 1) - self._offsets[first] <= limits.COALESCED_GET_SIZE
            and self._previous.has(number)
        ):
            number += 1
        return number

    async def _fetch(self, number: int) -> memoryview:
        return await self._fetch_block(number, self._blocks[number])

    def _offset(self, number: int) -> int:
        """Where a block begins; for the number after the last one, the end of the data."""
        return self._offsets[number] if number < len(self._offsets) else self._data_size


def _retrieve(task: asyncio.Task[memoryview]) -> None:
    if not task.cancelled():
        task.exception()  # told by whoever waits for the range, or wanted by nobody any more
