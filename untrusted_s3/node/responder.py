"""Answers block requests with ranged GETs on presigned URLs.

Nothing is cached. Requests that wait for a free place and lie next to each other in one object are answered by one
GET, so under load a few large reads take the place of many small ones.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.errors import NoSuchKey, StoreError
from untrusted_s3.index.segment import Entry
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
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
    """Reads blocks for all peers, `limits.CONCURRENT_DOWNLOADS` GETs at a time, within a budget of memory."""

    def __init__(self, bucket: Bucket, budget: ByteBudget, counters: Counters) -> None:
        self._bucket = bucket
        self._budget = budget
        self._counters = counters
        self._waiting: OrderedDict[tuple[str, int], list[_Waiting]] = OrderedDict()
        self._active = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, key: str, offset: int, size: int, answer: Answer) -> None:
        """Reads `size` bytes at `offset` of an object and answers with them; returns at once."""
        self._waiting.setdefault((key, offset), []).append(_Waiting(size, answer))
        self._start()

    def _start(self) -> None:
        while self._waiting and self._active < limits.CONCURRENT_DOWNLOADS:
            self._active += 1
            self._keep(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        try:
            # One turn of the loop, so that requests of the same TLS record are here.
            await asyncio.sleep(0)
            while self._waiting:
                await self._answer_next()
        finally:
            self._active -= 1

    async def _answer_next(self) -> None:
        (key, start), first = self._waiting.popitem(last=False)
        batch = [(start, first)]
        end = start + first[0].size
        while end - start < limits.COALESCED_GET_SIZE and (key, end) in self._waiting:
            following = self._waiting.pop((key, end))
            batch.append((end, following))
            end += following[0].size
        size = end - start
        await self._budget.acquire(size)
        code, data = pb.NO_ERROR, memoryview(b"")
        try:
            self._counters.range_requests.inc()
            data = memoryview(await self._bucket.get(key, start, size))
        except NoSuchKey:
            code = pb.NO_SUCH_FILE
            _logger.error("an object that the log names is missing; run check", key=key)
        except StoreError as error:
            code = pb.GENERIC
            _logger.warning("cannot read from the store", key=key, error=str(error))
        except BaseException:
            self._budget.release(size)
            raise
        answers = [
            request.answer(data[offset - start : offset - start + request.size], code)
            for offset, waiting in batch
            for request in waiting
        ]
        # A peer that reads slowly must not hold up this place.
        self._keep(asyncio.create_task(self._send(answers, size)))

    async def _send(self, answers: list[Awaitable[None]], size: int) -> None:
        await asyncio.gather(*answers, return_exceptions=True)
        self._budget.release(size)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
