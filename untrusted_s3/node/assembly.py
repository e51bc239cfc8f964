"""The bytes of one object as they come in: blocks from peers, unchanged ones from the object of the version before."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.stored_object import PreviousObject
from untrusted_s3.store.bucket import Bucket, Buffer

# Gets one block, given its number; raises BlockUnavailable where no peer has it.
FetchBlock = Callable[[int, pb.BlockInfo], Awaitable[memoryview]]


class Assembly:
    """Puts together what `docs/format.md` says of an object: the blocks in order, then the trailer.

    Each block is fetched from peers once, though two parts may share it: it would be another ciphertext the second
    time. `size` is that of the whole object in bytes.
    """

    def __init__(
        self, bucket: Bucket, file_info: FileInfo, fetch_block: FetchBlock, previous: PreviousObject | None = None
    ) -> None:
        self._bucket = bucket
        self._blocks = file_info.message.blocks
        self._offsets = [block.offset for block in self._blocks]
        self._trailer = memoryview(file_info.trailer())
        self._fetch_block = fetch_block
        self._previous = previous
        self._fetches: dict[int, asyncio.Task[memoryview]] = {}
        self._taken: dict[int, int] = {}
        self.data_size = file_info.message.size
        self.size = self.data_size + len(self._trailer)

    def request(self, start: int, end: int) -> None:
        """Begins to fetch what peers must give of the range; ranges must come in order."""
        for number in self._numbers(start, end):
            if number not in self._fetches and not self._unchanged(number):
                self._fetches[number] = asyncio.create_task(self._fetch(number))

    async def pieces(self, start: int, end: int) -> list[Buffer]:
        """The bytes of the range, in order; it must have been requested, and may be taken once."""
        pieces: list[Buffer] = []
        unchanged_from = None
        for number in self._numbers(start, end):
            block = self._blocks[number]
            first, last = max(start, block.offset), min(end, block.offset + block.size)
            if self._unchanged(number):
                unchanged_from = first if unchanged_from is None else unchanged_from
                continue
            if unchanged_from is not None:
                pieces.append(await self._read_previous(unchanged_from, first))
                unchanged_from = None
            data = await self._fetches[number]
            pieces.append(data[first - block.offset : last - block.offset])
            self._forget_when_taken(number, last - first)
        if unchanged_from is not None:
            pieces.append(await self._read_previous(unchanged_from, min(end, self.data_size)))
        if end > self.data_size:
            pieces.append(self._trailer[max(start - self.data_size, 0) : end - self.data_size])
        return pieces

    def begins_with_a_block(self, offset: int) -> bool:
        """Whether no block lies on both sides of the offset."""
        number = bisect.bisect_left(self._offsets, offset)
        return offset >= self.data_size or (number < len(self._offsets) and self._offsets[number] == offset)

    def cancel(self) -> None:
        """Gives up what is still under way."""
        for fetch in self._fetches.values():
            fetch.cancel()
            fetch.add_done_callback(_retrieve)

    def _numbers(self, start: int, end: int) -> range:
        """The blocks that the range touches."""
        if start >= self.data_size:
            return range(0)
        return range(bisect.bisect_right(self._offsets, start) - 1, bisect.bisect_left(self._offsets, end))

    def _unchanged(self, number: int) -> bool:
        return self._previous is not None and self._previous.has_block(number)

    async def _read_previous(self, start: int, end: int) -> bytes:
        assert self._previous is not None
        return await self._bucket.get(self._previous.key, start, end - start)

    async def _fetch(self, number: int) -> memoryview:
        return await self._fetch_block(number, self._blocks[number])

    def _forget_when_taken(self, number: int, size: int) -> None:
        taken = self._taken.pop(number, 0) + size
        if taken < self._blocks[number].size:
            self._taken[number] = taken
        else:
            del self._fetches[number]


def _retrieve(task: asyncio.Task[memoryview]) -> None:
    if not task.cancelled():
        task.exception()
