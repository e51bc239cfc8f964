"""One BEP connection without I/O: bytes in, events out; messages in, bytes out; the time is an argument.

Each side of a connection has its own state:

    their side                                       our side
    EXPECT_HELLO  --Hello-->  EXPECT_CLUSTER_CONFIG  SEND_HELLO  --hello()-->  SEND_CLUSTER_CONFIG
    EXPECT_CLUSTER_CONFIG  --ClusterConfig-->  READY SEND_CLUSTER_CONFIG  --cluster_config()-->  READY
    READY  --anything but Hello-->  READY            READY  --anything but hello()-->  READY
    any  --Close, an error or end of stream--> CLOSED any  --close()-->  CLOSED

Ping, Close and messages of unknown type may also come while a ClusterConfig is due. Anything else that is not in the
table raises RemoteProtocolError where the peer did it, and LocalProtocolError where we tried to; then nothing is sent.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants, events
from untrusted_s3.bep.cluster_config import decode_cluster_config
from untrusted_s3.bep.file_info import fault_of_name
from untrusted_s3.bep.framing import Frame, FrameDecoder, HelloDecoder, encode_frame, encode_hello
from untrusted_s3.bep.index_message import decode_index
from untrusted_s3.bep.response import decode_response, encode_response, response_id
from untrusted_s3.bep.wire import VARINT, Buffer, fields, parse
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError
from untrusted_s3.settings import ConnectionSettings


class TheirState(enum.Enum):
    """The peer's side: it decides which messages may come next."""

    EXPECT_HELLO = enum.auto()
    EXPECT_CLUSTER_CONFIG = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


class OurState(enum.Enum):
    """Our side: it decides which messages may be sent next."""

    SEND_HELLO = enum.auto()
    SEND_CLUSTER_CONFIG = enum.auto()
    READY = enum.auto()
    CLOSED = enum.auto()


_KINDS = frozenset(pb.MessageType.values())
_BEFORE_CLUSTER_CONFIG = {pb.CLUSTER_CONFIG, pb.PING, pb.CLOSE}
_MAX_REQUEST_ID = 2**31 - 1
# A request has eight fields.
_MAX_REQUEST_FIELDS = 64
# What a Response takes beside its data.
_RESPONSE_OVERHEAD = 1024
_DEFAULT_SETTINGS = ConnectionSettings()


class Connection:
    """The protocol of one connection, whichever side dialed.

    `now` is the time of any clock that never goes back, in seconds.

    Attributes:
        their_state: The peer's side.
        our_state: Our side.
        skip_unasked: Whether a Response to no request of ours is skipped undecoded.
    """

    def __init__(
        self, now: float, settings: ConnectionSettings = _DEFAULT_SETTINGS, *, first_request_id: int = 0
    ) -> None:
        self._settings = settings
        self.their_state = TheirState.EXPECT_HELLO
        self.our_state = OurState.SEND_HELLO
        self.skip_unasked = True
        self._hello_decoder = HelloDecoder()
        self._frame_decoder = FrameDecoder(self._is_unwanted)
        self._last_received = now
        self._last_sent = now
        self._message_began = now
        self._paused_at: float | None = None
        self._next_request_id = first_request_id
        # The requests without a response: their ids, and the bytes of their blocks.
        self._asked: dict[int, int] = {}
        self._asked_bytes = 0

    # Receiving

    def receive_data(self, data: Buffer, now: float) -> Iterator[events.Event]:
        """Yield the events that `data` completes. The iterator must be exhausted.

        Raises RemoteProtocolError, after the events before it; the connection then takes no more data.
        """
        if self.their_state is TheirState.CLOSED:
            return
        self._last_received = now
        try:
            yield from self._receive(data, now)
        except RemoteProtocolError:
            self.their_state = TheirState.CLOSED
            raise

    def receive_eof(self) -> None:
        """Note the end of the stream. Raises RemoteProtocolError where it cuts a message short."""
        state, self.their_state = self.their_state, TheirState.CLOSED
        if state is TheirState.EXPECT_HELLO:
            begun = "in the middle of" if not self._hello_decoder.empty else "before"
            raise RemoteProtocolError(f"the peer closed the connection {begun} its Hello")
        if state is not TheirState.CLOSED and self._frame_decoder.in_message:
            raise RemoteProtocolError("the peer closed the connection in the middle of a message")

    @property
    def buffered(self) -> int:
        """Bytes held of an incomplete message. Of a Response, only those beyond the blocks that we have asked for."""
        received = self._frame_decoder.received
        if self._frame_decoder.type == pb.RESPONSE and self._asked:
            return max(received - self._asked_bytes - _RESPONSE_OVERHEAD, 0)
        return received

    def pause_receiving(self, now: float) -> None:
        """Stop the peer's timers: nothing is read from it."""
        if self._paused_at is None:
            self._paused_at = now

    def resume_receiving(self, now: float) -> None:
        """Start the peer's timers again."""
        if self._paused_at is not None:
            self._last_received = now
            self._message_began += now - self._paused_at
            self._paused_at = None

    def _receive(self, data: Buffer, now: float) -> Iterator[events.Event]:
        if self.their_state is TheirState.EXPECT_HELLO:
            received = self._hello_decoder.receive_data(data)
            if received is None:
                return
            hello, data = received
            self.their_state = TheirState.EXPECT_CLUSTER_CONFIG
            yield events.HelloReceived(
                hello.device_name, hello.client_name, hello.client_version, hello.num_connections
            )
        if not self._frame_decoder.in_message:
            self._message_began = now
        for frame in self._frame_decoder.receive_data(data):
            self._message_began = now
            yield self._event(frame)
            if self.their_state is TheirState.CLOSED:
                return

    def _event(self, frame: Frame) -> events.Event:
        kind = frame.type
        if kind not in _KINDS:
            return events.UnknownMessageSkipped(kind)
        if self.their_state is TheirState.EXPECT_CLUSTER_CONFIG and kind not in _BEFORE_CLUSTER_CONFIG:
            raise RemoteProtocolError(f"{pb.MessageType.Name(kind)} before the first cluster config")
        if kind == pb.DOWNLOAD_PROGRESS:
            return events.DownloadProgressReceived()
        if kind == pb.PING:
            return events.PingReceived()
        if frame.unwanted:
            return events.UnaskedResponseSkipped()
        if kind == pb.RESPONSE:
            response = decode_response(frame.body)
            self.request_ended(response.id)
            return response
        body = frame.body
        if kind == pb.REQUEST:
            return self._request_received(body)
        if kind in (pb.INDEX, pb.INDEX_UPDATE):
            update = kind == pb.INDEX_UPDATE
            folder, files, last_sequence, prev_sequence = decode_index(body)
            return events.IndexReceived(folder, files, update, last_sequence, prev_sequence if update else 0)
        if kind == pb.CLUSTER_CONFIG:
            folders = decode_cluster_config(body)
            self.their_state = TheirState.READY
            return events.ClusterConfigReceived(folders)
        self.their_state = TheirState.CLOSED
        return events.CloseReceived(parse(pb.Close, body).reason)

    def _is_unwanted(self, message_type: int, start: bytes) -> bool:
        """Return whether nothing in a message is of use: it is of such a type, or a Response to no request of ours."""
        if message_type in (pb.DOWNLOAD_PROGRESS, pb.PING):
            return True
        if not self.skip_unasked or self.their_state is not TheirState.READY:
            return False
        return message_type == pb.RESPONSE and response_id(start) not in self._asked

    @staticmethod
    def _request_received(body: bytes | bytearray) -> events.RequestReceived | events.UnanswerableRequestReceived:
        try:
            request = parse(pb.Request, body)
        except RemoteProtocolError as error:
            # Most likely a name that is no UTF-8.
            return events.UnanswerableRequestReceived(_request_id(body), str(error))
        fault = fault_of_name(request.name)
        if fault is None and not 0 <= request.size <= constants.MAX_REQUEST_SIZE:
            fault = f"a request for {request.size} bytes"
        if fault is not None:
            return events.UnanswerableRequestReceived(request.id, fault)
        return events.RequestReceived(
            request.id,
            request.folder,
            request.name,
            request.offset,
            request.size,
            request.hash,
            request.from_temporary,
        )

    # Sending

    def hello(self, device_name: str, client_name: str, client_version: str, timestamp: int, now: float) -> bytes:
        """Return our Hello. `timestamp` is the wall clock in nanoseconds, above 0: Syncthing panics on 0."""
        self._our_turn(OurState.SEND_HELLO)
        if timestamp <= 0:
            raise LocalProtocolError("a Hello needs a timestamp above zero")
        hello = encode_hello(
            pb.Hello(
                device_name=device_name,
                client_name=client_name,
                client_version=client_version,
                num_connections=1,
                timestamp=timestamp,
            )
        )
        self.our_state = OurState.SEND_CLUSTER_CONFIG
        self._last_sent = now
        return hello

    def cluster_config(self, folders: Sequence[pb.Folder], now: float) -> bytes:
        """Return a ClusterConfig: our first message after Hello, sent again whenever the shared folders change."""
        self._our_turn(OurState.SEND_CLUSTER_CONFIG, OurState.READY)
        frame = self._frame(pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=folders).SerializeToString(), now)
        self.our_state = OurState.READY
        return frame

    def index(
        self, folder: str, files: Sequence[bytes], *, update: bool, prev_sequence: int, last_sequence: int, now: float
    ) -> bytes:
        """Return an IndexUpdate, or an Index, upon which the peer forgets our earlier file infos.

        `files` are serialized file infos.
        """
        self._our_turn(OurState.READY)
        message = pb.Index(folder=folder, files=files, last_sequence=last_sequence)
        if update:
            message.prev_sequence = prev_sequence
        return self._frame(pb.INDEX_UPDATE if update else pb.INDEX, message.SerializeToString(), now)

    def request(self, folder: str, name: str, block_no: int, block: pb.BlockInfo, now: float) -> tuple[int, bytes]:
        """Return the id and the bytes of a request for one encrypted block.

        Syncthing refuses a request without hash since 2.1.2 and panics where offset - 40 * block_no is negative (v2.1.3
        lib/protocol/encryption.go). Raises LocalProtocolError for both.
        """
        self._our_turn(OurState.READY)
        if len(block.hash) != constants.TOKEN_SIZE:
            raise LocalProtocolError(f"a request for a block with a token of {len(block.hash)} bytes")
        if block_no < 0 or block.offset - constants.BLOCK_OVERHEAD * block_no < 0:
            raise LocalProtocolError(f"block {block_no} cannot be at offset {block.offset}")
        if block.size < constants.MIN_ENCRYPTED_BLOCK_SIZE:
            raise LocalProtocolError(f"an encrypted block of {block.size} bytes")
        request_id = self._next_request_id
        self._next_request_id = (request_id + 1) & _MAX_REQUEST_ID
        self._asked[request_id] = block.size
        self._asked_bytes += block.size
        message = pb.Request(
            id=request_id,
            folder=folder,
            name=name,
            offset=block.offset,
            size=block.size,
            hash=block.hash,
            block_no=block_no,
        )
        return request_id, self._frame(pb.REQUEST, message.SerializeToString(), now)

    def request_ended(self, request_id: int) -> None:
        """Note that nobody waits for the response to a request any more. It will be dropped undecoded."""
        self._asked_bytes -= self._asked.pop(request_id, 0)

    def response(self, request_id: int, data: Buffer, code: int, now: float) -> list[Buffer]:
        """Return a Response in pieces to send one after the other."""
        self._our_turn(OurState.READY)
        pieces = encode_response(request_id, data, code)
        self._last_sent = now
        return pieces

    def close(self, reason: str, now: float) -> bytes:
        """Return a Close, our last message; nothing where the peer does not expect one yet, or it was sent before."""
        state, self.our_state = self.our_state, OurState.CLOSED
        if state is not OurState.READY:
            return b""
        return self._frame(pb.CLOSE, pb.Close(reason=reason).SerializeToString(), now)

    def _our_turn(self, *allowed: OurState) -> None:
        if self.our_state not in allowed:
            raise LocalProtocolError(f"not in the state {self.our_state.name}")

    def _frame(self, message_type: int, body: bytes, now: float) -> bytes:
        frame = encode_frame(message_type, body)
        self._last_sent = now
        return frame

    # Time

    def next_timer(self) -> float:
        """Return the time at which `handle_timer` is to be called next."""
        due = []
        if self._paused_at is None:
            due.append(self._last_received + self._settings.receive_timeout)
            if self._frame_decoder.in_message:
                due.append(self._message_due())
        if self.our_state is OurState.READY:
            due.append(self._last_sent + self._settings.ping_interval)
        return min(due, default=self._last_received + self._settings.receive_timeout)

    def handle_timer(self, now: float) -> bytes:
        """Return a Ping if one is due, else nothing.

        Raises RemoteProtocolError where nothing came for `receive_timeout`, and where an incomplete message came more
        slowly than `slowest_peer` after `stall_timeout`.
        """
        if self._paused_at is None:
            if now >= self._last_received + self._settings.receive_timeout:
                self.their_state = TheirState.CLOSED
                raise RemoteProtocolError(f"nothing received for {self._settings.receive_timeout:.0f} s")
            if self._frame_decoder.in_message and now >= self._message_due():
                self.their_state = TheirState.CLOSED
                raise RemoteProtocolError(
                    f"a message comes too slowly: {self._frame_decoder.received} bytes "
                    f"in {now - self._message_began:.0f} s"
                )
        if self.our_state is OurState.READY and now >= self._last_sent + self._settings.ping_interval:
            return self._frame(pb.PING, b"", now)
        return b""

    def _message_due(self) -> float:
        settings = self._settings
        return self._message_began + max(settings.stall_timeout, self._frame_decoder.received / settings.slowest_peer)


def _request_id(body: bytes | bytearray) -> int:
    """Return the id of a Request that cannot be parsed as a whole. Raises RemoteProtocolError."""
    request_id = 0
    try:
        for field, wire_type, value, _ in fields(body, _MAX_REQUEST_FIELDS):
            if field == 1 and wire_type == VARINT:
                request_id = value & 0xFFFF_FFFF
    except ValueError as error:
        raise RemoteProtocolError(f"invalid Request: {error}") from error
    return request_id - (1 << 32) if request_id >> 31 else request_id
