"""One TCP connection: TLS and BEP over an asyncio transport, with flow control and timers."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol, cast

from OpenSSL import SSL

from untrusted_s3 import limits
from untrusted_s3.bep.connection import Connection
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import Event, HelloReceived
from untrusted_s3.errors import ProtocolError, RemoteProtocolError
from untrusted_s3.node.tls import TLSConnection

_READ_SIZE = 256 * limits.KIB
_WRITE_HIGH_WATER = 1 * limits.MIB


class TransportHandler(Protocol):
    """What wants to know of a connection."""

    def secured(self) -> None:
        """TLS is up: the peer's device ID is known, and our Hello may go out."""
        ...

    def received(self, event: Event) -> None:
        """The peer said something."""
        ...

    def closed(self, error: Exception | None) -> None:
        """The connection is gone, for `error` where it was not closed in order. Called once."""
        ...


class BEPTransport(asyncio.BufferedProtocol):
    """Moves bytes between a socket, TLS and a BEP connection. `handler` must be set before it is connected."""

    handler: TransportHandler

    def __init__(self, context: SSL.Context, *, server_side: bool) -> None:
        self.opened = time.monotonic()
        self.server_side = server_side
        self.bep = Connection(self.opened)
        self.address = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self._tls = TLSConnection(context, server_side)
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._secured = False
        # What comes after the Hello of a peer that is not accepted yet; None before and after.
        self._held: list[bytes] | None = None
        self._error: Exception | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._timer: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        peer = self._transport.get_extra_info("peername")
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        self.address = f"tcp://{host}:{peer[1]}"
        self._timer = asyncio.get_running_loop().call_later(limits.HANDSHAKE_TIMEOUT, self._handshake_timed_out)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        try:
            pieces = self._tls.receive_data(self._buffer[:nbytes])
            if self._tls.handshake_complete and not self._secured:
                self._secured = True
                self.handler.secured()
            self._receive(pieces)
        except ProtocolError as error:
            self.fail(error)
            return
        self._flush()
        if self._tls.closed and self._transport is not None and not self._transport.is_closing():
            self.eof_received()
            self._end()

    def _receive(self, pieces: list[bytes]) -> None:
        now = time.monotonic()
        for number, piece in enumerate(pieces):
            if self._held is not None:
                self._held.extend(pieces[number:])
                return
            for event in self.bep.receive_data(piece, now):
                if isinstance(event, HelloReceived):
                    self._held = []
                    self.pause_reading()
                self.handler.received(event)

    def eof_received(self) -> bool:
        try:
            self._tls.receive_eof()
            self.bep.receive_eof()
        except RemoteProtocolError as error:
            self._error = self._error or error
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._can_write.set()
        self._transport = None
        self.handler.closed(self._error or exc)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # What the session calls

    @property
    def peer_device_id(self) -> DeviceID:
        """Who the peer is, once `secured` was called."""
        return self._tls.peer_device_id

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self._transport is not None and not self._transport.is_closing() and not self._tls.closed

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Sends bytes that `bep` made; dropped where the connection is closing."""
        if self.is_open and any(len(piece) for piece in pieces):
            self._tls.send_data(*pieces)
            self._flush()

    async def drained(self) -> None:
        """Waits until most of what was written has left."""
        await self._can_write.wait()

    def pause_reading(self) -> None:
        """Takes nothing more from the peer until `resume_reading`."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes data from the peer again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def admit(self) -> None:
        """The peer is accepted: what it said after its Hello is heard now, and BEP's own timers count."""
        held, self._held = self._held or [], None
        self._receive(held)
        self.resume_reading()
        self._schedule()

    def close(self, reason: str) -> None:
        """Says Close and ends the connection in order."""
        self.write(self.bep.close(reason, time.monotonic()))
        self._end()

    def fail(self, error: Exception) -> None:
        """Ends the connection because of `error`, which the peer is told."""
        self._error = self._error or error
        self.close(str(error))

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._tls.close()
        self._flush()
        if self._transport is not None:
            self._transport.close()
            # A peer that does not read must not keep the connection.
            asyncio.get_running_loop().call_later(limits.CLOSE_TIMEOUT, self.abort)

    def _flush(self) -> None:
        data = self._tls.data_to_send()
        if data and self._transport is not None:
            self.bytes_sent += len(data)
            self._transport.write(data)

    def _handshake_timed_out(self) -> None:
        self.fail(RemoteProtocolError(f"no Hello within {limits.HANDSHAKE_TIMEOUT:.0f} s"))

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # At least so often, for what is sent meanwhile may bring the next ping nearer.
        delay = min(max(self.bep.next_timer() - time.monotonic(), 0), limits.PING_INTERVAL)
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        try:
            self.write(self.bep.handle_timer(time.monotonic()))
        except ProtocolError as error:
            self.fail(error)
            return
        self._schedule()
