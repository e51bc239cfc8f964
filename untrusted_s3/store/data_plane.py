"""The data plane: HTTP requests to presigned URLs, which carry the bytes of objects."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from untrusted_s3.errors import StoreBusy
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.adaptive_limit import limit_of_request
from untrusted_s3.store.answers import MAX_ERROR_SIZE, check_head, error_code, too_long, unreachable
from untrusted_s3.store.bucket import Buffer
from untrusted_s3.store.clock import StoreClock
from untrusted_s3.store.network import Network
from untrusted_s3.store.s3_errors import pause_wanted, refusal
from untrusted_s3.units import KIB

_NETWORK = Network()
# Bodies up to this size are joined: a system call for each piece costs more than the copy.
_JOINED = 64 * KIB


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a status below 300."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Pieces(Payload):
    """A request body in pieces that are sent one after the other: a small one as a whole, with the head."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        size = sum(len(piece) for piece in pieces)
        super().__init__([b"".join(pieces)] if 0 < size <= _JOINED else pieces)
        self._size = size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            await writer.write(piece)


class DataPlane:
    """A pool of HTTP connections to the store, for use within one event loop.

    `requests` counts the requests that are sent, by HTTP method.

    Attributes:
        received: How many bytes of bodies have come.
    """

    def __init__(
        self,
        settings: StoreSettings,
        requests: Counter[str],
        network: Network = _NETWORK,
        proxy: str | None = None,
        clock: StoreClock | None = None,
    ) -> None:
        """`proxy` is the URL of an HTTP proxy; `clock` is told the dates of answers.

        Raises UsageError if the network's certificates cannot be read.
        """
        self.received = 0
        self._clock = clock or StoreClock()
        self._settings = settings
        self._requests = requests
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.connections, ssl=network.tls_context() or True),
            proxy=proxy,
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

    async def get(self, url: URL, what: str, headers: Mapping[str, str], max_size: int) -> Answer:
        """Send a GET once. The body may have `max_size` bytes; `what` names the request in messages.

        Raises AnswerTooLong or another StoreError.
        """
        return await self._request("GET", url, what, headers, None, 0, None, max_size)

    async def send(
        self, method: str, url: URL, what: str, body: Sequence[Buffer], headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a PUT, POST or DELETE with a body once. Raises StoreError."""
        # The session's timeouts are for what the server sends; they do not notice a server that stops reading.
        size = sum(map(len, body))
        patience = self._settings.timeout + size / self._settings.slowest_upload
        return await self._request(method, url, what, headers, _Pieces(body), size, patience, MAX_ERROR_SIZE)

    async def _request(
        self,
        method: str,
        url: URL,
        what: str,
        headers: Mapping[str, str] | None,
        data: _Pieces | None,
        size: int,
        patience: float | None,
        max_size: int,
    ) -> Answer:
        self._requests[method] += 1
        limit, began = limit_of_request(), asyncio.get_running_loop().time()
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as response,
            ):
                self._clock.note(response.headers.get("Date"))
                check_head(response.status, response.headers, what)
                refused = response.status >= 300
                most = MAX_ERROR_SIZE if refused else max_size
                says = response.content_length or 0
                body = await self._read(response.content, most) if says <= most else None
                if body is None:
                    response.close()  # else the rest would be read
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if limit is not None and isinstance(error, TimeoutError):
                limit.refused(began)
            raise unreachable(what, error) from None  # its text and its parts contain the signed URL
        if refused:
            refused_as = refusal(
                response.status, error_code(body or b""), what, pause_wanted(response.headers.get("Retry-After"))
            )
            if limit is not None and isinstance(refused_as, StoreBusy):
                limit.refused(began, refused_as.pause)
            raise refused_as
        if body is None:
            raise too_long(what, max_size)
        if limit is not None:
            limit.answered(size + len(body), began)
        return Answer(response.status, response.headers, body)

    async def _read(self, stream: aiohttp.StreamReader, max_size: int) -> bytes | None:
        """Return all bytes of a stream, or None as soon as there are more than `max_size`."""
        chunks, size = [], 0
        while chunk := await stream.readany():
            size += len(chunk)
            self.received += len(chunk)
            if size > max_size:
                return None
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
