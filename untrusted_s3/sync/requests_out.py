"""Our requests for blocks to one peer: the window, matching responses, and timeouts."""

from __future__ import annotations

import asyncio
import time

from untrusted_s3.accounts import Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import ResponseReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.connection import PeerConnection

_GONE = "the connection to the peer is gone"


class RequestsOut:
    """Requests over one connection. `window` bounds the bytes that are requested and not here yet."""

    def __init__(self, connection: PeerConnection, window: Share, counters: Counters, settings: SyncSettings) -> None:
        self._connection = connection
        self._window = window
        self._counters = counters
        self._settings = settings
        self._responses: dict[int, asyncio.Future[ResponseReceived]] = {}
        self._last_response = float("-inf")
        self._active = 0
        self._stopped = False

    def __len__(self) -> int:
        """Return the number of requests that wait for a response."""
        return len(self._responses)

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        """Return one encrypted block. Raises BlockUnavailable."""
        if self._stopped:
            raise BlockUnavailable(_GONE)
        self._active += 1
        try:
            response = await self._within_window(folder_id, name, number, block)
        finally:
            self._active -= 1
            self._close_if_unused()
        if response.code != pb.NO_ERROR:
            raise BlockUnavailable(f"the peer answers {_error_name(response.code)}")
        if len(response.data) != block.size:
            raise BlockUnavailable(f"the peer sends {len(response.data)} bytes instead of {block.size}")
        self._counters.blocks_received.inc()
        self._counters.block_bytes_received.inc(block.size)
        return response.data

    def received(self, event: ResponseReceived) -> None:
        """Take a response of the peer; one that nobody waits for is dropped."""
        future = self._responses.pop(event.id, None)
        if future is not None and not future.done():
            self._last_response = _loop_time()
            future.set_result(event)

    def stop(self) -> None:
        """Fail all requests, since the connection is gone. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._close_if_unused()
        for future in self._responses.values():
            if not future.done():
                future.set_exception(BlockUnavailable(_GONE))

    def _close_if_unused(self) -> None:
        if self._stopped and not self._active:
            self._window.close()

    async def _within_window(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> ResponseReceived:
        await self._window.acquire(block.size)
        try:
            return await self._request(folder_id, name, number, block)
        finally:
            self._window.release(block.size)

    async def _request(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> ResponseReceived:
        if self._stopped or not self._connection.is_open:
            raise BlockUnavailable(_GONE)
        request_id, message = self._connection.bep.request(folder_id, name, number, block, time.monotonic())
        future: asyncio.Future[ResponseReceived] = asyncio.get_running_loop().create_future()
        self._responses[request_id] = future
        self._connection.write(message)
        try:
            return await self._response(future, block.size)
        finally:
            self._responses.pop(request_id, None)

    async def _response(self, future: asyncio.Future[ResponseReceived], size: int) -> ResponseReceived:
        """Wait for a block of `size` bytes.

        Over a slow line a block comes after all that were requested before it. So the time that it may take is extended
        by each response that comes meanwhile, and by what is requested.
        """
        timeout, slowest = self._settings.request_timeout, self._settings.slowest_peer
        asked = _loop_time()
        last = asked + timeout + self._window.used / slowest
        while not future.done():
            due = min(max(asked, self._last_response) + timeout + size / slowest, last)
            now = _loop_time()
            if now >= due:
                raise BlockUnavailable(f"no answer within {now - asked:.0f} s")
            await asyncio.wait([future], timeout=due - now)
        return future.result()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _error_name(code: int) -> str:
    return pb.ErrorCode.Name(code) if code in pb.ErrorCode.values() else f"error {code}"
