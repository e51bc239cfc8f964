"""An HTTP proxy between a gateway and its S3 server that injects the faults a test asks for.

It runs in a thread of the test. It passes requests on unchanged, the Host header included, so signatures stay valid:
the gateway signs for the proxy's address, which is its --endpoint-url.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.peers.store_requests import StoreRequest, read_request
from untrusted_s3.compat.ports import ReservedPort

_CHUNK = 64 * 1024
_HEAD_SIZE = 64 * 1024
_LOGGED = 100_000


class Moment(Enum):
    """The moment at which a connection breaks."""

    BEFORE = "before the store sees the request"
    UNSENT = "before the first byte of the request's body, in an orderly way towards the store"
    BODY = "in the middle of the request's body"
    AFTER = "after the store has done it, before its answer"
    HEAD = "in the middle of the answer's head"
    ANSWER = "in the middle of the answer's body"


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the proxy itself; the store never sees the request."""

    status: int
    code: str


@dataclass(frozen=True, slots=True)
class Forged:
    """An answer of any status, headers and body; the store never sees the request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """A reset of the connection to the client; `then` is called just before."""

    moment: Moment
    then: Callable[[], None] = field(default=_nothing, repr=False)


@dataclass(frozen=True, slots=True)
class Delay:
    """A pause before the request is passed on."""

    seconds: float


Fault = Answer | Forged | Reset | Delay
Script = Callable[[StoreRequest], Fault | None]

SLOW_DOWN = Answer(503, "SlowDown")
INTERNAL_ERROR = Answer(500, "InternalError")
PASSING: tuple[Fault, ...] = (SLOW_DOWN, INTERNAL_ERROR, Delay(0.3), *(Reset(moment) for moment in Moment))


def no_fault(request: StoreRequest) -> Fault | None:
    """Inject no fault."""
    return None


def random_faults(seed: int, probability: float, faults: Sequence[Fault] = PASSING) -> Script:
    """Return a script that gives each request one of the faults with this probability."""
    numbers = random.Random(seed)
    return lambda request: numbers.choice(faults) if numbers.random() < probability else None


def store_full(answer: Answer) -> Script:
    """Return a script that answers requests which need space so; reading and deleting work."""
    taking = ("PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
    return lambda request: answer if request.operation.startswith(taking) else None


class FaultProxy:
    """A proxy for one server, a context manager.

    `script` is called once for each request, in the proxy's thread, and may be set at any time. `bandwidth` limits all
    bodies together, in bytes a second. `requests` are the latest requests, `counts` the number of each class.
    """

    def __init__(self, upstream_url: str, script: Script = no_fault) -> None:
        url = urlsplit(upstream_url)
        assert url.hostname is not None and url.port is not None
        self.script = script
        self.bandwidth: float | None = None
        self.requests: deque[StoreRequest] = deque(maxlen=_LOGGED)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.url = f"http://127.0.0.1:{self.port}"
        self._upstream = url.hostname, url.port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._is_away = False
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._paced_until = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    def go_away(self) -> None:
        """Reset all connections, and refuse new ones until `come_back`."""
        assert not self._is_away
        self._run(self._close())
        self._is_away = True

    def come_back(self) -> None:
        """Serve again after `go_away`."""
        if self._is_away:
            self._run(self._listen())
            self._is_away = False

    def drop_connections(self) -> None:
        """Reset all connections, with the requests under way."""
        self._run(self._drop_connections())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_HEAD_SIZE)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop_connections()

    async def _drop_connections(self) -> None:
        for task, writer in list(self._connections.items()):
            _reset(writer)
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # One connection of a client, with one to the server behind it

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        upstream = _Upstream(*self._upstream)
        try:
            while await self._serve(reader, writer, upstream):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            upstream.close()
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: _Upstream) -> bool:
        """Serve one request. Return false if the connection has ended."""
        method, target, lines, headers = _parse(await reader.readuntil(b"\r\n\r\n"))
        size = int(headers.get("content-length", 0))
        request = read_request(method, target, headers)
        self.requests.append(request)
        self.counts[request.request_class] += 1
        fault = self.script(request)
        if fault is not None:
            self.faults[f"{request.request_class}: {fault}"] += 1
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        match fault:
            case Reset(Moment.BEFORE):
                return _break(writer, fault)
            case Answer(status, code):
                await self._copy(reader, None, size)
                writer.write(_error(status, code, method))
                await writer.drain()
                return True
            case Forged():
                await self._copy(reader, None, size)
                writer.write(_forged(fault, method))
                await writer.drain()
                return True
            case Delay(seconds):
                await asyncio.sleep(seconds)
        await upstream.open()
        upstream.writer.write(b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:")))
        if isinstance(fault, Reset) and fault.moment is Moment.UNSENT and size:
            await upstream.finish()
            return _break(writer, fault)
        if isinstance(fault, Reset) and fault.moment in (Moment.UNSENT, Moment.BODY):
            await self._copy(reader, upstream.writer, size // 2)
            upstream.close()
            return _break(writer, fault)
        await self._copy(reader, upstream.writer, size)
        return await self._answer(method, writer, upstream, fault)

    async def _answer(
        self, method: str, writer: asyncio.StreamWriter, upstream: _Upstream, fault: Fault | None
    ) -> bool:
        status, lines, headers = _parse_answer(await upstream.reader.readuntil(b"\r\n\r\n"))
        if isinstance(fault, Reset) and fault.moment is Moment.AFTER:
            return _break(writer, fault)
        body, size = upstream.reader, int(headers.get("content-length", 0))
        if method == "HEAD" or status in (204, 304):
            size = 0
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body, size = await _unchunk(upstream.reader)
            lines = [line for line in lines if not line.lower().startswith(b"transfer-encoding:")]
            lines.insert(1, b"Content-Length: %d" % size)
        head = b"\r\n".join(lines)
        if isinstance(fault, Reset):
            if fault.moment is Moment.HEAD or not size:
                writer.write(head[: head.index(b"\r\n") + 20])
            else:
                writer.write(head)
                await self._copy(body, writer, size // 2)
            fault.then()
            return False  # an orderly end: a reset could take back what has been written
        writer.write(head)
        await self._copy(body, writer, size)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, size: int) -> None:
        while size:
            data = await reader.read(min(size, _CHUNK))
            if not data:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(data)
            if self.bandwidth is not None:
                self._paced_until = max(self._paced_until, time.monotonic()) + len(data) / self.bandwidth
                await asyncio.sleep(self._paced_until - time.monotonic())
            if writer is not None:
                writer.write(data)
                await writer.drain()


class _Upstream:
    """The connection to the server, reopened when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        if self._streams is None or self.reader.at_eof():
            self.close()
            self._streams = await asyncio.open_connection(*self._address, limit=_HEAD_SIZE)

    @property
    def reader(self) -> asyncio.StreamReader:
        assert self._streams is not None
        return self._streams[0]

    @property
    def writer(self) -> asyncio.StreamWriter:
        assert self._streams is not None
        return self._streams[1]

    async def finish(self) -> None:
        """End the connection after all is sent, and give the server time to notice."""
        await self.writer.drain()
        self.writer.close()
        await asyncio.sleep(0.05)
        self._streams = None

    def close(self) -> None:
        if self._streams is not None:
            self.writer.transport.abort()
            self._streams = None


def _parse(head: bytes) -> tuple[str, str, list[bytes], Mapping[str, str]]:
    """Return method, target, the lines of the head with the empty last one, and the headers by names in lower case."""
    lines = head.split(b"\r\n")
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    return method, target, lines, _headers(lines[1:])


def _parse_answer(head: bytes) -> tuple[int, list[bytes], Mapping[str, str]]:
    lines = head.split(b"\r\n")
    return int(lines[0].split(b" ", 2)[1]), lines, _headers(lines[1:])


def _headers(lines: list[bytes]) -> Mapping[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _unchunk(reader: asyncio.StreamReader) -> tuple[asyncio.StreamReader, int]:
    """Return a chunked body as one of a known size."""
    body = asyncio.StreamReader()
    total = 0
    while size := int((await reader.readline()).split(b";")[0], 16):
        body.feed_data(await reader.readexactly(size))
        await reader.readline()
        total += size
    while (await reader.readline()).strip():  # trailers
        pass
    return body, total


def _error(status: int, code: str, method: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = (
        f"HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    return head if method == "HEAD" else head + body


def _forged(answer: Forged, method: str) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    head = f"HTTP/1.1 {answer.status} Forged\r\n{headers}Content-Length: {len(answer.body)}\r\n\r\n".encode()
    return head if method == "HEAD" else head + answer.body


def _break(writer: asyncio.StreamWriter, fault: Reset) -> bool:
    fault.then()
    _reset(writer)
    return False


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
