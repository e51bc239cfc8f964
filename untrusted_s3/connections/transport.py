"""One connection: moves bytes between a stream, TLS and BEP, with flow control and timers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from untrusted_s3.addresses import Address, HostPort
from untrusted_s3.bep.connection import Connection
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import Event, HelloReceived
from untrusted_s3.connections.admission import Admission, UnadmittedConnections
from untrusted_s3.connections.reasons import public_reason
from untrusted_s3.connections.stall import StallTimer
from untrusted_s3.errors import DialFailed, ProtocolError, RemoteProtocolError
from untrusted_s3.settings import ConnectionSettings
from untrusted_s3.units import KIB

_OTHER_DEVICE = "another device answers at the address"

# One buffer for all connections: what is read into it is taken out before the next connection reads.
_read_buffer = memoryview(bytearray(256 * KIB))
# How much of it is used for a peer that sends more than so many messages in one read.
_LEAST_READ = 16 * KIB
_MANY_MESSAGES = 1000


class SecureChannel(Protocol):
    """An authenticated, encrypted channel without I/O, as `tls.TLSConnection` is one.

    A stream that is secured already, as QUIC's, gets a channel that passes bytes through.
    """

    @property
    def handshake_complete(self) -> bool:
        """Whether the peer is known and data may be sent."""
        ...

    @property
    def closed(self) -> bool:
        """Whether no more data can pass."""
        ...

    @property
    def peer_device_id(self) -> DeviceID:
        """The device ID of the peer, once the handshake is complete."""
        ...

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take encrypted bytes from the peer; return decrypted ones. Raises RemoteProtocolError."""
        ...

    def receive_eof(self) -> None:
        """Note that the stream has ended. Raises RemoteProtocolError if the channel was not closed before."""
        ...

    def send_data(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Encrypt the bytes of all buffers."""
        ...

    def data_to_send(self) -> bytes:
        """Return the bytes that have to go to the peer now."""
        ...

    def close(self) -> None:
        """Tell the peer that nothing more follows. A second call does nothing."""
        ...


class TransportHandler(Protocol):
    """Hears what happens on a connection."""

    def secured(self) -> None:
        """TLS is up: the peer's device ID is known, and our Hello may go out."""
        ...

    def received(self, event: Event) -> None:
        """The peer has sent a message."""
        ...

    def buffered(self, size: int) -> None:
        """`size` bytes of an incomplete message are held; 0 for a Response, because it was asked for."""
        ...

    def closed(self, error: Exception | None) -> None:
        """The connection has ended; `error` says why if it was not closed in order. Called once."""
        ...


class BEPTransport(asyncio.BufferedProtocol):
    """One connection to a peer, as an asyncio protocol over any byte stream.

    `new_handler` is called when the connection is made, so that an attempt that never connects leaves nothing behind.
    If `expected` is given, a peer with another device ID is cut before anything is said to it.

    Attributes:
        opened: The loop's time at which the transport was made.
        dialed: Whether we opened the connection. The TLS role is the channel's and need not follow from it.
        bep: The protocol state. Its methods make the messages that `write` sends.
        address: The peer's address, such as tcp://192.0.2.1:22000; empty before the connection is made.
        bytes_received: Encrypted bytes received.
        bytes_sent: Encrypted bytes sent, including those that wait in the write buffer.
    """

    def __init__(
        self,
        channel: SecureChannel,
        new_handler: HandlerFactory,
        settings: ConnectionSettings,
        *,
        scheme: str,
        dialed: bool,
        unadmitted: UnadmittedConnections | None = None,
        expected: DeviceID | None = None,
    ) -> None:
        self.opened = _now()
        self.dialed = dialed
        self.bep = Connection(self.opened, settings)
        self.address = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self._channel = channel
        self._new_handler = new_handler
        self._handler: TransportHandler | None = None
        self._settings = settings
        self._scheme = scheme
        self._admission = Admission(self, unadmitted)
        self._transport: asyncio.Transport | None = None
        self._expected = expected
        self._secured = False
        self._decided = asyncio.Event()
        self._said_close = False
        self._read_size = 4 * _LEAST_READ
        self._buffered = 0
        self._error: Exception | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._stall = StallTimer(settings)
        self._timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._settings.write_buffer)
        peer = self._transport.get_extra_info("peername") or ("unknown", 0)
        host = str(peer[0])
        self.address = str(Address(self._scheme, HostPort(host, peer[1])))
        self._handler = self._new_handler(self)
        timeout = self._settings.handshake_timeout
        self._timer = asyncio.get_running_loop().call_later(timeout, self._handshake_timed_out)
        self._admission.opened(host)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _read_buffer[: self._read_size]

    def buffer_updated(self, nbytes: int) -> None:
        assert self._handler is not None
        self.bytes_received += nbytes
        try:
            pieces = self._channel.receive_data(_read_buffer[:nbytes])
            if self._channel.handshake_complete and not self._secured:
                if self._expected is not None and self._channel.peer_device_id != self._expected:
                    raise RemoteProtocolError(_OTHER_DEVICE)
                self._secured = True
                self._decided.set()
                self._handler.secured()
            self._receive(pieces)
        except ProtocolError as error:
            self.fail(error)
            return
        if self.bep.buffered != self._buffered:
            self._buffered = self.bep.buffered
            self._handler.buffered(self._buffered)
        self._flush()
        if self._channel.closed and self._transport is not None and not self._transport.is_closing():
            self.eof_received()
            self.end()

    def _receive(self, pieces: list[bytes]) -> None:
        assert self._handler is not None
        now = _now()
        count = 0
        for number, piece in enumerate(pieces):
            if self._admission.holding:
                self._admission.hold(pieces[number:])
                return
            for event in self.bep.receive_data(piece, now):
                count += 1
                if isinstance(event, HelloReceived):
                    self._admission.begin()
                    self.pause_reading()
                self._handler.received(event)
        self._adapt_read_size(count)

    def _adapt_read_size(self, messages: int) -> None:
        """Read less at once from a peer that sends very small messages: each takes its time, and others wait."""
        if messages > _MANY_MESSAGES:
            self._read_size = _LEAST_READ
        elif messages < _MANY_MESSAGES // 8:
            self._read_size = min(2 * self._read_size, len(_read_buffer))

    def eof_received(self) -> bool:
        try:
            self._channel.receive_eof()
            self.bep.receive_eof()
        except RemoteProtocolError as error:
            self._error = self._error or error
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._abort_timer):
            if timer is not None:
                timer.cancel()
        self._admission.ended()
        self._can_write.set()
        self._decided.set()
        self._error = self._error or exc
        self._transport = None
        # A TLS connection has some 50 KB, which would wait for the collector of cycles.
        del self._channel
        assert self._handler is not None
        self._handler.closed(self._error)

    def pause_writing(self) -> None:
        self._can_write.clear()
        self._stall.start(_now(), self._bytes_left())

    def resume_writing(self) -> None:
        self._stall.stop()
        self._can_write.set()

    # Called by the dialer

    async def proven(self) -> None:
        """Wait until the peer has proven its device ID. Raises DialFailed if the connection ends before."""
        await self._decided.wait()
        if not self._secured:
            raise DialFailed(str(self._error or "the connection ended before the peer had shown its device ID"))

    # Called by the handler

    @property
    def peer_device_id(self) -> DeviceID:
        """The peer's device ID, once `TransportHandler.secured` was called."""
        return self._channel.peer_device_id

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        can_send = self._transport is not None and not self._transport.is_closing() and not self._channel.closed
        return can_send and not self._said_close

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Send bytes that `bep` made. Drops them if the connection is closing."""
        if self.is_open and any(len(piece) for piece in pieces):
            self._channel.send_data(*pieces)
            self._flush()

    async def drained(self) -> None:
        """Wait until most of what was written has left."""
        await self._can_write.wait()

    def pause_reading(self) -> None:
        """Take nothing from the peer until `resume_reading`."""
        if self._transport is not None:
            self.bep.pause_receiving(_now())
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take data from the peer again."""
        if self._transport is not None and not self._transport.is_closing():
            self.bep.resume_receiving(_now())
            self._transport.resume_reading()

    def admit(self) -> None:
        """The peer is accepted: hear what it said after its Hello, and start BEP's own timers."""
        self._receive(self._admission.admit())
        self.resume_reading()
        self._schedule()

    def close(self, reason: str) -> None:
        """Send Close and end the connection in order."""
        self.write(self.bep.close(reason, _now()))
        self.end()

    def say_close(self, reason: str) -> None:
        """Send Close and let the peer end the connection.

        A peer that notices the end of the stream first may not read what came before it (v2.1.3
        lib/protocol/protocol.go, readerLoop beside dispatcherLoop).
        """
        message = self.bep.close(reason, _now())
        self.write(message)
        self._said_close = True
        if not message:
            self.end()

    def fail(self, error: Exception) -> None:
        """End the connection because of `error`, and tell the peer what it may know of it."""
        self._error = self._error or error
        self.close(public_reason(error))

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def evict(self, error: Exception) -> None:
        """End the connection at once because of `error`."""
        self._error = self._error or error
        self.abort()

    def end(self) -> None:
        """End the connection in order, without a Close."""
        if self._transport is None:
            return
        self._channel.close()
        self._flush()
        self._transport.close()
        if self._stall.running:
            # The peer would not read the Close either.
            self.abort()
        elif self._abort_timer is None:
            # A peer that does not read must not keep the connection.
            timeout = self._settings.close_timeout
            self._abort_timer = asyncio.get_running_loop().call_later(timeout, self.abort)
            self._admission.closing()

    def _flush(self) -> None:
        if self._transport is None:
            return
        data = self._channel.data_to_send()
        if data:
            self.bytes_sent += len(data)
            self._transport.write(data)

    def _handshake_timed_out(self) -> None:
        self.fail(RemoteProtocolError(f"no Hello within {self._settings.handshake_timeout:.0f} s"))

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due_in = max(self.bep.next_timer() - _now(), 0)
        # At least this often, because what is sent meanwhile can bring the next Ping nearer.
        delay = min(due_in, self._settings.ping_interval, self._settings.stall_timeout / 4)
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        now = _now()
        try:
            self.write(self.bep.handle_timer(now))
            self._stall.check(now, self._bytes_left())
        except ProtocolError as error:
            self.fail(error)
            return
        self._schedule()

    def _bytes_left(self) -> int:
        """Return how many of the bytes sent the system has taken."""
        return self.bytes_sent - (self._transport.get_write_buffer_size() if self._transport is not None else 0)


def _now() -> float:
    return asyncio.get_running_loop().time()


HandlerFactory = Callable[[BEPTransport], TransportHandler]
