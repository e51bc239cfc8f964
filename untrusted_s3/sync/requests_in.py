"""Peers' requests for blocks, and the responses."""

from __future__ import annotations

import asyncio

from untrusted_s3.accounts import Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.counters import Counters
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.responder import Responder


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

    async def answer(self, request_id: int, block: RequestedBlock) -> None:
        """Read a requested block and send it.

        Returns when there is memory for the block, so that a peer that reads slowly waits with its own requests only.
        """
        self._active += 1
        try:
            await self._memory.acquire(block.size)
        except BaseException:
            self._ended()
            raise

        async def send(data: memoryview, code: int) -> None:
            try:
                await self._send(request_id, data, code)
            finally:
                self._memory.release(block.size)
                self._ended()

        self._responder.submit(block, send)

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
