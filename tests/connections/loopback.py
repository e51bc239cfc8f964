"""Pairs of BEP transports over a real loopback socket in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from untrusted_s3.bep import events
from untrusted_s3.connections.tls import make_context
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.identity.certificate import Identity, generate

OURS, THEIRS = generate(), generate()
EventType = TypeVar("EventType", bound=events.Event)


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Waits until something is so; fails where it never is."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


class Recorder:
    """One end of a connection that keeps what it hears. With `polite` it says Hello as soon as it may."""

    def __init__(self, identity: Identity, *, server_side: bool, polite: bool = True) -> None:
        self.transport = BEPTransport(make_context(identity), server_side=server_side)
        self.transport.handler = self
        self.heard: list[events.Event] = []
        self.is_secured = False
        self.is_buffered = 0
        self.ends: list[Exception | None] = []
        self.polite = polite

    def secured(self) -> None:
        self.is_secured = True
        if self.polite:
            self.transport.write(self.transport.bep.hello("name", "test", "v1", time.time_ns(), time.monotonic()))

    def received(self, event: events.Event) -> None:
        self.heard.append(event)
        if self.polite and isinstance(event, events.HelloReceived):
            asyncio.get_running_loop().call_soon(self.transport.admit)

    def buffered(self, size: int) -> None:
        self.is_buffered = size

    def closed(self, error: Exception | None) -> None:
        self.ends.append(error)

    def all(self, kind: type[EventType]) -> list[EventType]:
        """What was heard of one kind."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def hear(self, kind: type[EventType], count: int = 1) -> EventType:
        """Waits for the `count`th event of a kind."""
        await until(lambda: len(self.all(kind)) >= count or bool(self.ends))
        assert len(self.all(kind)) >= count, f"the connection ended: {self.ends}, heard {self.heard}"
        return self.all(kind)[count - 1]

    async def end(self) -> Exception | None:
        """Waits for the end of the connection and tells why it came."""
        await until(lambda: bool(self.ends))
        return self.ends[0]


@asynccontextmanager
async def listening(protocol: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    """A server on a free loopback port; gives the port."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def connected(accepted: asyncio.BaseProtocol, dialed: asyncio.BaseProtocol) -> AsyncIterator[None]:
    """Connects two protocols, and cuts the connection in the end."""
    async with listening(lambda: accepted) as port:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: dialed, "127.0.0.1", port)
    try:
        yield
    finally:
        transport.abort()
        if isinstance(accepted, BEPTransport):
            accepted.abort()
        await asyncio.sleep(0.01)
