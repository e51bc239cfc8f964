"""Answers block requests with ranged GETs on presigned URLs.

Nothing is cached. Of one object only a few ranges are read at a time; requests that wait meanwhile and lie next to each
other are then answered by one GET, so a few large reads take the place of many small ones.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.byte_budget import SharedBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import NoSuchKey, StoreError
from untrusted_s3.index.entry import Entry
from untrusted_s3.store.bucket import Bucket

_logger = structlog.get_logger()

# Sends a block, or no bytes and an error code of BEP, and returns when most of it has left.
Answer = Callable[[memoryview, int], Awaitable[None]]


def matches(request: RequestReceived, entry: Entry) -> bool:
    """Whether the request is for exactly one stored block of the file's current version.

    The hash may be missing (Syncthing before 1.28.1); where it is there it must be the block's token.
    """
    message = entry.file_info.message
    if entry.stored is None or message.name != request.name:
        return False
    blocks = message.blocks
    number = bisect.bisect_left(blocks, request.offset, key=lambda block: block.offset)
    if number == len(blocks) or blocks[number].offset != request.offset or blocks[number].size != request.size:
        return False
    return not request.hash or request.hash == blocks[number].hash


@dataclass(frozen=True, slots=True)
class _Waiting:
    size: int
    answer: Answer


class Responder:
    """Reads blocks for all peers, `limits.CONCURRENT_DOWNLOADS` GETs at a time.

    Who submits must have taken the memory from a share of `budget` before, and gives it back after the answer.
    """

    def __init__(self, bucket: Bucket, budget: SharedBudget, counters: Counters) -> None:
        self.budget = budget
        self._bucket = bucket
        self._counters = counters
        # By object and offset, in the order in which objects have their turn.
        self._waiting: OrderedDict[str, dict[int, list[_Waiting]]] = OrderedDict()
        self._reading: Counter[str] = Counter()
        self._active = 0
        self._store_in_trouble = False
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, key: str, offset: int, size: int, answer: Answer) -> None:
        """Reads `size` bytes at `offset` of an object and answers with them; returns at once."""
        self._waiting.setdefault(key, {}).setdefault(offset, []).append(_Waiting(size, answer))
        if self._active < limits.CONCURRENT_DOWNLOADS and self._next_object() is not None:
            self._active += 1
            self._keep(asyncio.create_task(self._work()))

    async def stop(self) -> None:
        """Gives up what is under way: nobody waits for it any more, and the store's connections will be closed."""
        self._waiting.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        try:
            # One turn of the loop, so that requests of the same TLS record are here.
            await asyncio.sleep(0)
            while (key := self._next_object()) is not None:
                self._reading[key] += 1
                try:
                    await self._read(key, self._take_neighbours(key))
                finally:
                    self._reading[key] -= 1
                    if not self._reading[key]:
                        del self._reading[key]
        finally:
            self._active -= 1

    def _next_object(self) -> str | None:
        """The first object that has requests waiting and may be read; one that may not is being read already, and
        whoever reads it comes back."""
        for key in self._waiting:
            if self._reading[key] < limits.CONCURRENT_GETS_OF_OBJECT:
                return key
        return None

    def _take_neighbours(self, key: str) -> list[tuple[int, list[_Waiting]]]:
        """The object's request that waits longest, and those that follow it without a gap, by offset."""
        requests = self._waiting[key]
        offset = next(iter(requests))
        batch: list[tuple[int, list[_Waiting]]] = []
        size = 0
        while offset in requests and size < limits.COALESCED_GET_SIZE:
            same = requests.pop(offset)
            batch.append((offset, same))
            offset += same[0].size
            size += same[0].size
        if requests:
            self._waiting.move_to_end(key)
        else:
            del self._waiting[key]
        return batch

    async def _read(self, key: str, batch: list[tuple[int, list[_Waiting]]]) -> None:
        start = batch[0][0]
        size = sum(same[0].size for _, same in batch)
        code, data = pb.NO_ERROR, memoryview(b"")
        try:
            self._counters.range_requests.inc()
            data = memoryview(await self._bucket.get(key, start, size))
            self._store_in_trouble = False
        except NoSuchKey:
            code = pb.NO_SUCH_FILE
            _logger.error("an object that the log names is missing; run check", key=key)
        except StoreError as error:
            code = pb.GENERIC
            if not self._store_in_trouble:  # once is enough: peers ask again and again
                _logger.warning("cannot read from the store", key=key, error=str(error))
            self._store_in_trouble = True
        # A peer that reads slowly must not hold up this place.
        for offset, same in batch:
            for request in same:
                block = data[offset - start : offset - start + request.size]
                self._keep(asyncio.create_task(self._send(request.answer, block, code)))

    async def _send(self, answer: Answer, block: memoryview, code: int) -> None:
        await answer(block, code)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
