"""Connections over TCP."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import structlog

from untrusted_s3.addresses import Address, HostPort
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.scheme import Scheme
from untrusted_s3.connections.tls import TLSRole
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.errors import AddressUnavailable, DialFailed
from untrusted_s3.settings import ConnectionSettings

_SCHEME = "tcp"
_BACKLOG = 1024

_logger = structlog.get_logger()


class TCPDialer:
    """Dials over TCP; the dialing side is the TLS client. Implements `scheme.SchemeDialer`."""

    def __init__(self, transports: TransportFactory, settings: ConnectionSettings) -> None:
        self._transports = transports
        self._timeout = settings.handshake_timeout

    async def dial(self, address: Address, device_id: DeviceID | None = None) -> None:
        loop = asyncio.get_running_loop()
        host, port = address.endpoint.host, address.endpoint.port
        transport: BEPTransport | None = None

        def new_transport() -> BEPTransport:
            return self._transports.over_tls(_SCHEME, TLSRole.CLIENT, dialed=True, expected=device_id)

        try:
            async with asyncio.timeout(self._timeout):
                _, transport = await loop.create_connection(new_transport, host, port)
                await transport.proven()
        except BaseException as error:
            if transport is not None:
                transport.abort()
            if isinstance(error, TimeoutError):
                raise DialFailed(f"{address}: no connection within {self._timeout:.0f} s") from None
            if isinstance(error, OSError | UnicodeError | DialFailed):  # UnicodeError: a name that IDNA cannot encode
                raise DialFailed(f"{address}: {error}") from error
            raise


class TCPListener:
    """Accepts connections on one TCP address; the accepting side is the TLS server.

    Implements `scheme.SchemeListener`. An empty host means all addresses of this machine.

    Attributes:
        server: What accepts connections; None while nothing does.
    """

    def __init__(self, address: Address, transports: TransportFactory) -> None:
        self._address = address
        self._transports = transports
        self.server: asyncio.Server | None = None
        self._port = address.endpoint.port

    async def start(self) -> None:
        try:
            self.server = await self._new_server()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AddressUnavailable(str(replace(self._address, scheme=_SCHEME)), "devices", reason) from error
        self._port = self._port or self.addresses[0].endpoint.port

    async def listen_again(self) -> None:
        # uvloop 0.23 closes a server without a word when a connection comes and no file descriptor is free.
        if self.server is None or self.addresses:
            return
        self.server.close()
        with contextlib.suppress(OSError):  # such as no free file descriptor yet
            self.server = await self._new_server()
            _logger.warning("listening again", addresses=[str(address) for address in self.addresses])

    async def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.close()

    @property
    def addresses(self) -> list[Address]:
        try:
            sockets = self.server.sockets if self.server is not None else ()
        except RuntimeError:  # uvloop's answer for a server that it has closed
            sockets = ()
        return [Address(_SCHEME, HostPort(*socket.getsockname()[:2])) for socket in sockets]

    async def _new_server(self) -> asyncio.Server:
        host = self._address.endpoint.host or None
        return await asyncio.get_running_loop().create_server(self._new_transport, host, self._port, backlog=_BACKLOG)

    def _new_transport(self) -> BEPTransport:
        return self._transports.over_tls(_SCHEME, TLSRole.SERVER, dialed=False)


TCP = Scheme(dialer=TCPDialer, listener=TCPListener)
