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
from untrusted_s3.connections.tls import TLSConnection
from untrusted_s3.connections.unadmitted import UnadmittedConnections
from untrusted_s3.errors import ProtocolError, RemoteProtocolError

_READ_SIZE = 256 * limits.KIB
_WRITE_HIGH_WATER = 1 * limits.MIB
# For all connections: what is read into it is taken out before the next one reads.
_read_buffer = memoryview(bytearray(_READ_SIZE))


class TransportHandler(Protocol):
    """What wants to know of a connection."""

    def secured(self) -> None:
        """TLS is up: the peer's device ID is known, and our Hello may go out."""
        ...

    def received(self, event: Event) -> None:
        """The peer said something."""
        ...

    def buffered(self, size: int) -> None:
        """So many bytes of a message are here that is not complete (of a Response: 0, they were asked for)."""
        ...

    def closed(self, error: Exception | None) -> None:
        """The connection is gone, for `error` where it was not closed in order. Called once."""
        ...


class BEPTransport(asyncio.BufferedProtocol):
    """Moves bytes between a socket, TLS and a BEP connection. `handler` must be set before it is connected.

    It is among `unadmitted` until it is admitted, and again while it closes.
    """

    handler: TransportHandler

    def __init__(
        self, context: SSL.Context, *, server_side: bool, unadmitted: UnadmittedConnections | None = None
    ) -> None:
        self.opened = time.monotonic()
        self.server_side = server_side
        self.bep = Connection(self.opened)
        self.address = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self._tls = TLSConnection(context, server_side)
        self._transport: asyncio.Transport | None = None
        self._unadmitted = unadmitted
        self._secured = False
        self._said_close = False
        self._buffered = 0
        # What comes after the Hello of a peer that is not accepted yet; None before and after.
        self._held: list[bytes] | None = None
        self._error: Exception | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        # Since when, and after how many bytes that have left, the peer is waited for to read.
        self._stalled: tuple[float, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        peer = self._transport.get_extra_info("peername") or ("unknown", 0)
        self._host = str(peer[0])
        host = f"[{peer[0]}]" if ":" in str(peer[0]) else peer[0]
        self.address = f"tcp://{host}:{peer[1]}"
        self._timer = asyncio.get_running_loop().call_later(limits.HANDSHAKE_TIMEOUT, self._handshake_timed_out)
        if self._unadmitted is not None:
            self._unadmitted.add(self, self._host)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.bytes_received += nbytes
        try:
            pieces = self._tls.receive_data(_read_buffer[:nbytes])
            if self._tls.handshake_complete and not self._secured:
                self._secured = True
                self.handler.secured()
            self._receive(pieces)
        except ProtocolError as error:
            self.fail(error)
            return
        if self.bep.buffered != self._buffered:
            self._buffered = self.bep.buffered
            self.handler.buffered(self._buffered)
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
        for timer in (self._timer, self._abort_timer):
            if timer is not None:
                timer.cancel()
        if self._unadmitted is not None:
            self._unadmitted.remove(self)
        self._can_write.set()
        self._transport = None
        # Some 50 KB, which would wait for the collector of cycles.
        del self._tls
        self.handler.closed(self._error or exc)

    def pause_writing(self) -> None:
        self._can_write.clear()
        self._stalled = time.monotonic(), self._bytes_left()

    def resume_writing(self) -> None:
        self._stalled = None
        self._can_write.set()

    # What the session calls

    @property
    def peer_device_id(self) -> DeviceID:
        """Who the peer is, once `secured` was called."""
        return self._tls.peer_device_id

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        can_send = self._transport is not None and not self._transport.is_closing() and not self._tls.closed
        return can_send and not self._said_close

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
            self.bep.pause_receiving(time.monotonic())
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes data from the peer again."""
        if self._transport is not None and not self._transport.is_closing():
            self.bep.resume_receiving(time.monotonic())
            self._transport.resume_reading()

    def admit(self) -> None:
        """The peer is accepted: what it said after its Hello is heard now, and BEP's own timers count."""
        if self._unadmitted is not None:
            self._unadmitted.remove(self)
        held, self._held = self._held or [], None
        self._receive(held)
        self.resume_reading()
        self._schedule()

    def close(self, reason: str) -> None:
        """Says Close and ends the connection in order."""
        self.write(self.bep.close(reason, time.monotonic()))
        self._end()

    def say_close(self, reason: str) -> None:
        """Says Close, and leaves it to the peer to end the connection: one that notices the end first may not read what
        comes before it (lib/protocol/protocol.go, readerLoop beside dispatcherLoop)."""
        message = self.bep.close(reason, time.monotonic())
        self.write(message)
        self._said_close = True
        if not message:
            self._end()

    def fail(self, error: Exception) -> None:
        """Ends the connection because of `error`, which the peer is told."""
        self._error = self._error or error
        self.close(str(error))

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def evict(self, error: Exception) -> None:
        """Ends the connection at once, because of `error`."""
        self._error = self._error or error
        self.abort()

    def _end(self) -> None:
        if self._transport is None:
            return
        self._tls.close()
        self._flush()
        self._transport.close()
        if self._stalled is not None:
            # It would not read our Close either.
            self.abort()
        elif self._abort_timer is None:
            # A peer that does not read must not keep the connection.
            self._abort_timer = asyncio.get_running_loop().call_later(limits.CLOSE_TIMEOUT, self.abort)
            if self._unadmitted is not None:
                self._unadmitted.add(self, self._host)

    def _flush(self) -> None:
        if self._transport is None:
            return
        data = self._tls.data_to_send()
        if data:
            self.bytes_sent += len(data)
            self._transport.write(data)

    def _handshake_timed_out(self) -> None:
        self.fail(RemoteProtocolError(f"no Hello within {limits.HANDSHAKE_TIMEOUT:.0f} s"))

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # At least so often, for what is sent meanwhile may bring the next ping nearer.
        delay = min(max(self.bep.next_timer() - time.monotonic(), 0), limits.PING_INTERVAL, limits.STALL_TIMEOUT / 4)
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        try:
            self.write(self.bep.handle_timer(now))
            self._check_stalled(now)
        except ProtocolError as error:
            self.fail(error)
            return
        self._schedule()

    def _check_stalled(self, now: float) -> None:
        """Raises RemoteProtocolError where the peer makes us wait and reads more slowly than any line."""
        if self._stalled is None:
            return
        since, left_before = self._stalled
        read = self._bytes_left() - left_before
        if now >= since + max(limits.STALL_TIMEOUT, read / limits.SLOWEST_PEER):
            raise RemoteProtocolError(f"the peer reads too slowly: {read} bytes in {now - since:.0f} s")

    def _bytes_left(self) -> int:
        """How many of the bytes sent the system has taken."""
        return self.bytes_sent - (self._transport.get_write_buffer_size() if self._transport is not None else 0)
