"""Reads the blocks that peers request by ranged GETs.

Only a few ranges of one object are read at a time. Requests that wait meanwhile and lie next to each other are then
read by one GET. Where a peer reads in order, the GET reads on, up to the end of the part of the object: a store keeps
parts as they were written, and some read a whole part whatever is asked of them. What was read stays in memory for a
while, for the blocks that are requested next and for other peers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable

import structlog

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.counters import Counters
from untrusted_s3.errors import AnswerTooShort, NoSuchKey, StoreError
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.supervisor import TaskSet
from untrusted_s3.sync.recent_ranges import Answer, ObjectRange, RecentRanges, RequestedBlock, Waiting

_logger = structlog.get_logger()

# How many ends of ranges are remembered, to notice who reads on from there.
_MAX_ENDS = 4096


class Responder:
    """Reads blocks from the store for all peers.

    Attributes:
        gets: How many GETs are under way at once.
    """

    def __init__(
        self,
        bucket: Bucket,
        counters: Counters,
        settings: SyncSettings,
        recent_memory: int,
        on_failure: Callable[[str, int, int], object] = lambda key, start, size: None,
        on_block: Callable[[str, int, memoryview], object] = lambda key, offset, block: None,
    ) -> None:
        """`recent_memory` is how many bytes are kept for the requests that follow, or are read for them.

        `on_failure` gets key, start and size of a range that an object does not have, or of a missing object.
        `on_block` gets key, offset and bytes of each requested block, once for each time that it was read.
        """
        self.gets = AdaptiveLimit(settings.concurrent_gets, settings.most_gets, "reads")
        self._on_failure = on_failure
        self._on_block = on_block
        self._bucket = bucket
        self._counters = counters
        self._settings = settings
        # By object and offset, in the order in which the objects have their turn.
        self._waiting: OrderedDict[str, dict[int, list[Waiting]]] = OrderedDict()
        self._recent = RecentRanges(recent_memory, settings.recent_lifetime)
        # By key and end of a range: how many bytes of it were requested.
        self._requested: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._reading: Counter[str] = Counter()
        self._active = 0
        self.gets.on_change = self._limit_changed
        self._places = self.gets.of(self)
        self._store_in_trouble = False
        self._tasks = TaskSet()

    @property
    def recent_bytes(self) -> int:
        """The bytes that are kept for the requests that follow."""
        return self._recent.used

    def submit(self, block: RequestedBlock, answer: Answer) -> None:
        """Read a block and answer with it; return at once."""
        waiting = Waiting(block, answer)
        found = self._recent.find(block)
        if found is not None:
            self._note_requested(found, block)
            if found.data is None:
                found.waiting.append(waiting)
            else:
                self._answer(found, waiting)
            return
        self._waiting.setdefault(block.key, {}).setdefault(block.offset, []).append(waiting)
        self._start_reading()

    async def stop(self) -> None:
        """Cancel what is under way. The peers are gone, and the store's connections will be closed."""
        self._waiting.clear()
        await self._tasks.cancel()
        self._recent.clear()

    def _start_reading(self) -> None:
        """Start reading where there is something to read, and another GET may be under way."""
        if self._active < self.gets.limit and self._next_object() is not None:
            self._active += 1
            self._tasks.start(self._read_waiting())

    def _limit_changed(self) -> None:
        for _ in range(min(self.gets.limit - self._active, len(self._waiting))):
            self._start_reading()

    async def _read_waiting(self) -> None:
        try:
            # One turn of the loop, so that requests of the same TLS record are here.
            await asyncio.sleep(0)
            while self._active <= self.gets.limit and (key := self._next_object()) is not None:
                self._reading[key] += 1
                try:
                    await self._read(self._next_range(key))
                finally:
                    self._reading[key] -= 1
                    if not self._reading[key]:
                        del self._reading[key]
        finally:
            self._active -= 1

    def _next_object(self) -> str | None:
        """Return the first object that has requests waiting and may be read.

        One that may not is being read already, and its readers come back to it.
        """
        for key in self._waiting:
            if self._reading[key] < self._settings.concurrent_gets_of_object:
                return key
        return None

    def _next_range(self, key: str) -> ObjectRange:
        """Take the object's request that waits longest, and those that follow it without a gap in the same part.

        Where a peer reads on from the end of another range, this one goes on by twice the bytes that were requested of
        that one: who reads in order soon gets whole parts, and nobody makes the gateway read much for nothing.
        """
        requests = self._waiting[key]
        first = requests[next(iter(requests))][0].block
        end = first.end
        while end in requests and end < first.part_end and end - first.offset < self._settings.largest_get:
            end = requests[end][0].block.end
        before = self._requested.pop((key, first.offset), 0)
        end += self._ahead(first, end, 2 * before)
        found = self._recent.add(key, first.offset, end - first.offset)
        self._requested[key, end] = 0
        if len(self._requested) > _MAX_ENDS:
            self._requested.popitem(last=False)
        for offset in [offset for offset, same in requests.items() if found.has(same[0].block)]:
            self._note_requested(found, requests[offset][0].block)
            found.waiting += requests.pop(offset)
        if requests:
            self._waiting.move_to_end(key)
        else:
            del self._waiting[key]
        return found

    def _ahead(self, first: RequestedBlock, end: int, most: int) -> int:
        """Return how many bytes to read after `end`: whole blocks, at most to the end of the part."""
        most = min(most, first.part_end - end, self._settings.largest_get - (end - first.offset))
        if end + most < first.part_end:
            most -= most % first.size
        return most if most > 0 and self._recent.has_room(end - first.offset + most) else 0

    def _note_requested(self, found: ObjectRange, block: RequestedBlock) -> None:
        if block.offset not in found.requested:
            found.requested.add(block.offset)
            if (block.key, found.end) in self._requested:
                self._requested[block.key, found.end] += block.size

    async def _read(self, wanted: ObjectRange) -> None:
        try:
            self._recent.filled(wanted, await self._get(wanted))
            self._store_in_trouble = False
        except StoreError as error:
            code = self._note_failure(wanted, error)
            for one in wanted.waiting:
                self._tasks.start(self._send(one.answer, memoryview(b""), code))
        finally:
            if wanted.data is None:
                self._recent.drop(wanted)
        waiting, wanted.waiting = wanted.waiting, []
        for one in waiting if wanted.data is not None else ():
            self._answer(wanted, one)

    def _note_failure(self, wanted: ObjectRange, error: StoreError) -> int:
        """Return the error code for the peers."""
        if isinstance(error, NoSuchKey | AnswerTooShort):
            self._on_failure(wanted.key, wanted.start, wanted.size)
        if isinstance(error, NoSuchKey):
            return pb.NO_SUCH_FILE
        if not self._store_in_trouble:  # logged once, since peers ask again and again
            _logger.warning("object not read", key=wanted.key, error=str(error))
        self._store_in_trouble = True
        return pb.GENERIC

    async def _get(self, wanted: ObjectRange) -> memoryview:
        """Read a range; if the object ends before that, only what was requested of it."""
        try:
            return await self._get_once(wanted)
        except AnswerTooShort:
            requested = max(one.block.end for one in wanted.waiting) - wanted.start
            if requested == wanted.size:
                raise
            self._on_failure(wanted.key, wanted.start, wanted.size)
            self._recent.drop(wanted)
            wanted.size = requested
            return await self._get_once(wanted)

    async def _get_once(self, wanted: ObjectRange) -> memoryview:
        self._counters.range_requests.inc()
        async with self._places:
            return memoryview(await self._bucket.get(wanted.key, wanted.start, wanted.size))

    def _answer(self, found: ObjectRange, waiting: Waiting) -> None:
        """Answer with a block that is here, in a task: a peer that reads slowly holds nobody up."""
        block, data = waiting.block, found.bytes_of(waiting.block)
        if block.offset not in found.checked:
            found.checked.add(block.offset)
            self._on_block(block.key, block.offset, data)
        self._tasks.start(self._send(waiting.answer, data, pb.NO_ERROR))

    async def _send(self, answer: Answer, block: memoryview, code: int) -> None:
        await answer(block, code)
