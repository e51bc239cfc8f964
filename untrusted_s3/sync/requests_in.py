"""Peers' requests for blocks, answered by ranged GETs.

Nothing is cached. Only a few ranges of one object are read at a time. Requests that wait meanwhile and lie next to each
other are then read by one GET, so that a few large reads replace many small ones.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from untrusted_s3.accounts import Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import AnswerTooShort, NoSuchKey, StoreError
from untrusted_s3.index.entry import Entry
from untrusted_s3.settings import ObjectSettings, SyncSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.supervisor import TaskSet
from untrusted_s3.sync.connection import PeerConnection

_logger = structlog.get_logger()

# Sends a block, or no bytes and an error code of BEP, and returns when most of it has been sent.
Answer = Callable[[memoryview, int], Awaitable[None]]


def matches(request: RequestReceived, entry: Entry) -> bool:
    """Return whether the request is for exactly one stored block of this entry.

    The hash may be missing (Syncthing before 1.28.1); else it must be the block's token.
    """
    message = entry.file_info.message
    if entry.stored is None or message.name != request.name:
        return False
    blocks = message.blocks
    number = bisect.bisect_left(blocks, request.offset, key=lambda block: block.offset)
    if number == len(blocks) or blocks[number].offset != request.offset or blocks[number].size != request.size:
        return False
    return not request.hash or request.hash == blocks[number].hash


class RequestsIn:
    """The requests of one peer. `memory` bounds the bytes of its responses on their way."""

    def __init__(self, connection: PeerConnection, memory: Share, responder: Responder, counters: Counters) -> None:
        self._connection = connection
        self._memory = memory
        self._responder = responder
        self._counters = counters
        self._sending = asyncio.Lock()
        self._active = 0
        self._stopped = False

    async def answer(self, request: RequestReceived, key: str) -> None:
        """Read the requested range of an object and send it.

        Returns when there is memory for the block, so that a peer that reads slowly waits with its own requests only.
        """
        self._active += 1
        try:
            await self._memory.acquire(request.size)
        except BaseException:
            self._ended()
            raise

        async def send(data: memoryview, code: int) -> None:
            try:
                await self._send(request.id, data, code)
            finally:
                self._memory.release(request.size)
                self._ended()

        self._responder.submit(key, request.offset, request.size, send)

    async def refuse(self, request_id: int) -> None:
        """Answer that there is no such block."""
        self._counters.requests_refused.inc()
        await self._send(request_id, memoryview(b""), pb.NO_SUCH_FILE)

    def stop(self) -> None:
        """Note that the connection is gone. A second call does nothing."""
        if not self._stopped:
            self._stopped = True
            self._close_if_unused()

    def _ended(self) -> None:
        self._active -= 1
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._stopped and not self._active:
            self._memory.close()

    async def _send(self, request_id: int, data: memoryview, code: int) -> None:
        # One response at a time: the encrypted copy of one that the peer does not read is memory as well.
        async with self._sending:
            if not self._connection.is_open:
                return
            now = asyncio.get_running_loop().time()
            self._connection.write(*self._connection.bep.response(request_id, data, code, now))
            await self._connection.drained()
        if len(data):
            self._counters.blocks_sent.inc()
            self._counters.block_bytes_sent.inc(len(data))


@dataclass(frozen=True, slots=True)
class _Waiting:
    size: int
    answer: Answer


class Responder:
    """Reads blocks from the store for all peers, with a bounded number of GETs at a time."""

    def __init__(
        self,
        bucket: Bucket,
        counters: Counters,
        settings: SyncSettings,
        object_settings: ObjectSettings,
        on_failure: Callable[[str, int, int], object] = lambda key, start, size: None,
        on_block: Callable[[str, int, memoryview], object] = lambda key, offset, block: None,
    ) -> None:
        """`on_failure` gets key, start and size of a range that an object does not have, or of a missing object.

        `on_block` gets key, offset and bytes of each block that was read.
        """
        self._on_failure = on_failure
        self._on_block = on_block
        self._bucket = bucket
        self._counters = counters
        self._settings = settings
        self._coalesced_size = object_settings.coalesced_get_size
        # By object and offset, in the order in which the objects have their turn.
        self._waiting: OrderedDict[str, dict[int, list[_Waiting]]] = OrderedDict()
        self._reading: Counter[str] = Counter()
        self._active = 0
        self._store_in_trouble = False
        self._tasks = TaskSet()

    def submit(self, key: str, offset: int, size: int, answer: Answer) -> None:
        """Read `size` bytes at `offset` of an object and answer with them; return at once."""
        self._waiting.setdefault(key, {}).setdefault(offset, []).append(_Waiting(size, answer))
        if self._active < self._settings.concurrent_gets and self._next_object() is not None:
            self._active += 1
            self._tasks.start(self._read_waiting())

    async def stop(self) -> None:
        """Cancel what is under way. The peers are gone, and the store's connections will be closed."""
        self._waiting.clear()
        await self._tasks.cancel()

    async def _read_waiting(self) -> None:
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
        """Return the first object that has requests waiting and may be read.

        One that may not is being read already, and its readers come back to it.
        """
        for key in self._waiting:
            if self._reading[key] < self._settings.concurrent_gets_of_object:
                return key
        return None

    def _take_neighbours(self, key: str) -> list[tuple[int, list[_Waiting]]]:
        """Take the object's request that waits longest, and those that follow it without a gap, by offset."""
        requests = self._waiting[key]
        offset = next(iter(requests))
        batch: list[tuple[int, list[_Waiting]]] = []
        size = 0
        while offset in requests and size < self._coalesced_size:
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
            self._on_failure(key, start, size)
        except StoreError as error:
            if isinstance(error, AnswerTooShort):
                self._on_failure(key, start, size)
            code = pb.GENERIC
            if not self._store_in_trouble:  # logged once, since peers ask again and again
                _logger.warning("object not read", key=key, error=str(error))
            self._store_in_trouble = True
        # A peer that reads slowly must not occupy this reader.
        for offset, same in batch:
            if len(data):
                self._on_block(key, offset, data[offset - start : offset - start + same[0].size])
            for request in same:
                block = data[offset - start : offset - start + request.size]
                self._tasks.start(self._send(request.answer, block, code))

    async def _send(self, answer: Answer, block: memoryview, code: int) -> None:
        await answer(block, code)
