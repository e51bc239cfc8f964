"""Connections over TCP."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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
    """

    def __init__(self, address: Address, transports: TransportFactory) -> None:
        self._address = address
        self._transports = transports
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        host, port = self._address.endpoint.host, self._address.endpoint.port
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._new_transport, host or None, port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AddressUnavailable(str(replace(self._address, scheme=_SCHEME)), "devices", reason) from error

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    @property
    def addresses(self) -> list[Address]:
        sockets = self._server.sockets if self._server is not None else ()
        return [Address(_SCHEME, HostPort(*socket.getsockname()[:2])) for socket in sockets]

    def _new_transport(self) -> BEPTransport:
        return self._transports.over_tls(_SCHEME, TLSRole.SERVER, dialed=False)


TCP = Scheme(dialer=TCPDialer, listener=TCPListener)
