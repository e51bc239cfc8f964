"""The connections of HTTP clients: their number, the time they may take, and the size of what they send."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from untrusted_s3.settings import HTTPSettings

_MAX_LINE = 8190  # bytes of the request line, and of one header
_MAX_HEADERS = 64


class BoundedServer(web.Server):
    """Serves at most `max_connections` clients at a time, one request each.

    When one more comes, the oldest client that has not sent its request yet is cut; if all have sent theirs, the new
    one is.
    """

    def __init__(self, handler: Any, settings: HTTPSettings) -> None:
        super().__init__(handler)
        self._settings = settings
        self._open: dict[ClientConnection, None] = {}

    def __call__(self) -> web.RequestHandler:
        return ClientConnection(self, self._settings, self._open)


class ClientConnection(web.RequestHandler):
    """One client, which is cut if its request or its reading of the answer takes too long."""

    def __init__(
        self, server: BoundedServer, settings: HTTPSettings, connections: dict[ClientConnection, None]
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say: none
            keepalive_timeout=0,
            lingering_time=0,
            auto_decompress=False,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_HEADERS,
        )
        self._settings = settings
        self._connections = connections
        self._has_head = False
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(self._settings.head_timeout, self._head_is_due),
            loop.call_later(self._settings.request_timeout, self.cut),
        ]
        self._connections[self] = None
        if len(self._connections) > self._settings.max_connections:
            waiting = (connection for connection in self._connections if not connection.has_head)
            next(waiting, self).cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.pop(self, None)
        for timer in self._timers:
            timer.cancel()
        super().connection_lost(exc)

    @property
    def has_head(self) -> bool:
        """Whether the line and the headers of the request are here."""
        return self._has_head

    def head_received(self) -> None:
        """Note that the request is here, and give the answer its time."""
        self._has_head = True

    def cut(self) -> None:
        """End the connection at once."""
        self._connections.pop(self, None)
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, without repeating any of it here or in the log."""
        response = web.Response(status=status, text="not a request that is understood\n")
        response.force_close()
        return response

    def _head_is_due(self) -> None:
        if not self._has_head:
            self.cut()
