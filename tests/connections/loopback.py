"""Pairs of BEP transports over a real loopback socket in one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from tests.waiting import until as until
from untrusted_s3.bep import events
from untrusted_s3.connections.admission import UnadmittedConnections
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.tls import TLSRole, make_context
from untrusted_s3.connections.transport import BEPTransport, HandlerFactory
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import ConnectionSettings

OURS, THEIRS = generate(), generate()
DEFAULTS = ConnectionSettings()
EventType = TypeVar("EventType", bound=events.Event)


def now() -> float:
    """Return the time of the loop, which transports go by."""
    return asyncio.get_running_loop().time()


def new_transport(
    identity: Identity,
    new_handler: HandlerFactory,
    *,
    dialed: bool,
    settings: ConnectionSettings = DEFAULTS,
    unadmitted: UnadmittedConnections | None = None,
) -> BEPTransport:
    """A transport as TCP makes it."""
    transports = TransportFactory(make_context(identity), new_handler, settings, unadmitted)
    return transports.over_tls("tcp", TLSRole.CLIENT if dialed else TLSRole.SERVER, dialed=dialed)


class Recorder:
    """One end of a connection that keeps what it hears. If `polite`, it says Hello as soon as it may."""

    def __init__(
        self,
        identity: Identity,
        *,
        dialed: bool,
        polite: bool = True,
        settings: ConnectionSettings = DEFAULTS,
        unadmitted: UnadmittedConnections | None = None,
    ) -> None:
        self.transport = new_transport(
            identity, lambda transport: self, dialed=dialed, settings=settings, unadmitted=unadmitted
        )
        self.transport.bep.skip_unasked = False
        self.heard: list[events.Event] = []
        self.is_secured = False
        self.is_buffered = 0
        self.ends: list[Exception | None] = []
        self.polite = polite

    def secured(self) -> None:
        self.is_secured = True
        if self.polite:
            self.transport.write(self.transport.bep.hello("name", "test", "v1", time.time_ns(), now()))

    def received(self, event: events.Event) -> None:
        self.heard.append(event)
        if self.polite and isinstance(event, events.HelloReceived):
            asyncio.get_running_loop().call_soon(self.transport.admit)

    def buffered(self, size: int) -> None:
        self.is_buffered = size

    def closed(self, error: Exception | None) -> None:
        self.ends.append(error)

    def all(self, kind: type[EventType]) -> list[EventType]:
        """The events of one kind."""
        return [event for event in self.heard if isinstance(event, kind)]

    async def hear(self, kind: type[EventType], count: int = 1) -> EventType:
        """Wait for the `count`th event of a kind."""
        await until(lambda: len(self.all(kind)) >= count or bool(self.ends))
        assert len(self.all(kind)) >= count, f"the connection ended: {self.ends}, heard {self.heard}"
        return self.all(kind)[count - 1]

    async def end(self) -> Exception | None:
        """Wait for the end of the connection and return its error."""
        await until(lambda: bool(self.ends))
        return self.ends[0]


@asynccontextmanager
async def listening(protocol: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    """Run a server on a free loopback port; yield the port."""
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def connected(accepted: asyncio.BaseProtocol, dialed: asyncio.BaseProtocol) -> AsyncIterator[None]:
    """Connect two protocols, and in the end cut the connection and wait until both know."""
    open_ends: set[asyncio.BaseProtocol] = set()
    for end in (accepted, dialed):
        _keep_while_open(end, open_ends)
    async with listening(lambda: accepted) as port:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: dialed, "127.0.0.1", port)
    try:
        yield
    finally:
        transport.abort()
        if isinstance(accepted, BEPTransport):
            accepted.abort()
        await until(lambda: not open_ends)


def _keep_while_open(protocol: asyncio.BaseProtocol, open_ends: set[asyncio.BaseProtocol]) -> None:
    made, lost = protocol.connection_made, protocol.connection_lost

    def connection_made(transport: asyncio.BaseTransport) -> None:
        open_ends.add(protocol)
        made(transport)

    def connection_lost(exc: Exception | None) -> None:
        lost(exc)
        open_ends.discard(protocol)

    vars(protocol).update(connection_made=connection_made, connection_lost=connection_lost)
