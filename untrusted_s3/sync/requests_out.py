"""Our requests for blocks to one peer: the window, matching responses, and timeouts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from untrusted_s3.accounts import Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import ResponseReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.recent_bytes import RecentBytes

_GONE = "the connection to the peer is gone"
# A request is lost when so many later ones, and twice those before it, were answered.
_LOST_AFTER = 100


class RequestsOut:
    """Requests over one connection.

    `window` counts the bytes that are requested and not here yet. It is as large as what came lately and a little more:
    requests for more would wait behind their own backlog on a slow line, and on a fast one it doubles with each round
    trip.
    """

    def __init__(
        self,
        connection: PeerConnection,
        window: Share,
        counters: Counters,
        settings: SyncSettings,
        paused_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Make one without requests. `paused_seconds` says how long, in all, nothing was read from the peer."""
        self._connection = connection
        self._window = window
        self._counters = counters
        self._settings = settings
        self._responses: dict[int, asyncio.Future[ResponseReceived]] = {}
        self._recent = RecentBytes(settings.request_memory)
        # When the last response came, how many came before and with it, and how many bytes the connection had received.
        self._last_response = float("-inf")
        self._response_count = 0
        self._bytes_at_response = 0
        self._paused_seconds = paused_seconds
        self._paused_at_response = 0.0
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
            self._response_count += 1
            self._bytes_at_response = self._connection.bytes_received
            self._paused_at_response = self._paused_seconds()
            self._recent.add(self._last_response, len(event.data))
            self._adapt_window()
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
        self._adapt_window()
        await self._window.acquire(block.size)
        try:
            return await self._request(folder_id, name, number, block)
        finally:
            self._window.release(block.size)

    async def _request(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> ResponseReceived:
        if self._stopped or not self._connection.is_open:
            raise BlockUnavailable(_GONE)
        request_id, message = self._connection.bep.request(folder_id, name, number, block, _loop_time())
        future: asyncio.Future[ResponseReceived] = asyncio.get_running_loop().create_future()
        self._responses[request_id] = future
        self._connection.write(message)
        try:
            return await self._response(future, block.size)
        finally:
            self._responses.pop(request_id, None)
            self._connection.bep.request_ended(request_id)

    def _adapt_window(self) -> None:
        room = self._settings.first_request_window + self._recent.total(_loop_time())
        self._window.limit = min(room, self._settings.request_window)

    async def _response(self, future: asyncio.Future[ResponseReceived], size: int) -> ResponseReceived:
        """Wait for a block of `size` bytes.

        Over a slow line a block comes after all that were requested before it, and takes its time itself. So each
        response that comes meanwhile is progress, and so is each byte, up to as many as are requested. While the
        connection is not read from, no time passes. A block that does not come while many others do is lost.
        """
        timeout, slowest = self._settings.request_timeout, self._settings.slowest_peer
        asked = _loop_time()
        bytes_when_asked, paused_when_asked = self._connection.bytes_received, self._paused_seconds()
        lost_after = self._response_count + 2 * len(self._responses) + _LOST_AFTER
        while not future.done():
            if self._last_response > asked:
                last_progress, bytes_before = self._last_response, self._bytes_at_response
                paused_before = self._paused_at_response
            else:
                last_progress, bytes_before, paused_before = asked, bytes_when_asked, paused_when_asked
            came = min(self._connection.bytes_received - bytes_before, max(self._window.used, size))
            due = last_progress + timeout + came / slowest + self._paused_seconds() - paused_before
            if self._response_count >= lost_after:
                due = asked + timeout + self._paused_seconds() - paused_when_asked
            now = _loop_time()
            if now >= due:
                raise BlockUnavailable(f"no answer within {now - asked:.0f} s")
            await asyncio.wait([future], timeout=due - now)
        return future.result()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _error_name(code: int) -> str:
    return pb.ErrorCode.Name(code) if code in pb.ErrorCode.values() else f"error {code}"
