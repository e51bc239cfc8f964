"""The data plane: HTTP requests to presigned URLs, which carry the bytes of objects."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.bucket import Buffer
from untrusted_s3.store.s3_errors import refusal

_ERROR_CODE = re.compile(rb"<Code>([A-Za-z]+)</Code>")
_ERROR_SIZE = 4096


class _Pieces(Payload):
    """A request body in pieces that are sent one after the other, without being joined."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        super().__init__(pieces)
        self._size = sum(len(piece) for piece in pieces)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            await writer.write(piece)


class DataPlane:
    """A pool of HTTP connections to the store, for use within one event loop.

    `requests` counts the requests that are sent, by HTTP method.
    """

    def __init__(self, settings: StoreSettings, requests: Counter[str]) -> None:
        self._settings = settings
        self._requests = requests
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.connections),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=settings.connect_timeout, sock_read=settings.timeout
            ),
            # Ceph refuses presigned requests with an unsigned Content-Type.
            skip_auto_headers={"Content-Type", "Accept-Encoding", "Accept"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, url: URL, what: str, headers: Mapping[str, str]) -> bytes:
        """Send a GET once and return the body. Raises StoreError; `what` names the request in its message."""
        _, content = await self._request("GET", url, what, headers, None, None)
        return content

    async def send(
        self, method: str, url: URL, what: str, body: Sequence[Buffer], headers: Mapping[str, str] | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a PUT or POST with a body once, and return the answer's headers and body. Raises StoreError."""
        # The session's timeouts are for what the server sends; they do not notice a server that stops reading.
        patience = self._settings.timeout + sum(map(len, body)) / self._settings.slowest_upload
        return await self._request(method, url, what, headers, _Pieces(body), patience)

    async def _request(
        self,
        method: str,
        url: URL,
        what: str,
        headers: Mapping[str, str] | None,
        data: _Pieces | None,
        patience: float | None,
    ) -> tuple[Mapping[str, str], bytes]:
        self._requests[method] += 1
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(method, url, headers=headers, data=data) as response,
            ):
                content = await response.read()
                if response.status < 300:
                    return response.headers, content
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise StoreUnreachable(f"the store cannot be reached ({what}): {error or type(error).__name__}") from error
        code = _ERROR_CODE.search(content[:_ERROR_SIZE])
        raise refusal(response.status, code[1].decode() if code else "", what)
