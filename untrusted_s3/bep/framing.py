"""Hello and message frames: how BEP messages lie in the byte stream (BEP specification, "Pre-authentication messages"
and "Post-authentication Messages").

    Hello:    magic (4 bytes, 0x2EA7D90B)  length (2)  Hello
    message:  header length (2)  Header  message length (4)  message

All lengths are big endian. An LZ4 message starts with its uncompressed size in 4 bytes, big endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lz4.block

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.wire import Buffer, parse
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError

HELLO_MAGIC = 0x2EA7D90B
# The first bytes of a message tell whether it is wanted.
_START = 16
# The first words of the protocol versions before Syncthing 0.14.
_OLD_MAGICS = {0x00010001, 0x00010000, 0x9F79BC40}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: its type number, known or not, and its uncompressed body; nothing of one that is unwanted."""

    type: int
    body: bytearray | bytes
    unwanted: bool = False


def encode_hello(hello: pb.Hello) -> bytes:
    """Return the Hello with its magic and length. Raises LocalProtocolError where it is too long."""
    body = hello.SerializeToString()
    if len(body) > constants.MAX_HELLO_SIZE:
        raise LocalProtocolError(f"a Hello of {len(body)} bytes is too long")
    return struct.pack(">IH", HELLO_MAGIC, len(body)) + body


def encode_frame(message_type: int, body: bytes) -> bytes:
    """Return one uncompressed message with its header and lengths."""
    return frame_head(message_type, len(body)) + body


def frame_head(message_type: int, body_size: int) -> bytes:
    """Return the bytes that go before an uncompressed body of `body_size` bytes."""
    if body_size > constants.MAX_MESSAGE_SIZE:
        raise LocalProtocolError(f"a message of {body_size} bytes is over the cap of {constants.MAX_MESSAGE_SIZE}")
    # Protobuf leaves out fields of value 0, so the header of a cluster config is empty.
    header = b"\x08" + bytes([message_type]) if message_type else b""
    return struct.pack(">H", len(header)) + header + struct.pack(">I", body_size)


class HelloDecoder:
    """A decoder that takes bytes until the Hello is complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether no byte has been received."""
        return not self._buffer

    def receive_data(self, data: Buffer) -> tuple[pb.Hello, bytes] | None:
        """Return the Hello and the bytes after it, or None while bytes are missing.

        Raises RemoteProtocolError for another magic, a length over the cap, or an invalid Hello.
        """
        self._buffer += data
        if len(self._buffer) >= 4:
            magic = int.from_bytes(self._buffer[:4], "big")
            if magic in _OLD_MAGICS:
                raise RemoteProtocolError("the peer speaks a protocol older than Syncthing 0.14")
            if magic != HELLO_MAGIC:
                raise RemoteProtocolError(f"the peer does not say Hello (first bytes {magic:08x})")
        if len(self._buffer) < 6:
            return None
        size = int.from_bytes(self._buffer[4:6], "big")
        if size > constants.MAX_HELLO_SIZE:
            raise RemoteProtocolError(f"a Hello of {size} bytes is over the cap of {constants.MAX_HELLO_SIZE}")
        if len(self._buffer) < 6 + size:
            return None
        return parse(pb.Hello, bytes(self._buffer[6 : 6 + size])), bytes(self._buffer[6 + size :])


class FrameDecoder:
    """A decoder that takes bytes in any pieces and gives whole messages. It holds no more memory than the bytes
    received.

    `is_unwanted` is called with the type of a message and the first bytes of its body, as they are uncompressed.
    A message for which it returns true is not uncompressed.
    """

    def __init__(self, is_unwanted: Callable[[int, bytes], bool] = lambda message_type, start: False) -> None:
        self._is_unwanted = is_unwanted
        self._buffer = bytearray()
        self._needed = 2
        self._step: Callable[[bytearray], Frame | None] = self._header_length
        self._type = 0
        self._compressed = False

    @property
    def received(self) -> int:
        """Bytes held of an incomplete message."""
        return len(self._buffer)

    @property
    def type(self) -> int:
        """The type of the message whose header came last."""
        return self._type

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._buffer) or self._step != self._header_length

    def receive_data(self, data: Buffer) -> Iterator[Frame]:
        """Yield the messages that `data` completes. The iterator must be exhausted.

        Raises RemoteProtocolError, after the messages before it, for a length over its cap, an invalid header, or LZ4
        data that does not have its stated size.
        """
        view = memoryview(data)
        position = 0
        while True:
            missing = self._needed - len(self._buffer)
            if missing > 0:
                piece = view[position : position + missing]
                self._buffer += piece
                position += len(piece)
                if len(piece) < missing:
                    return
            complete, self._buffer = self._buffer, bytearray()
            frame = self._step(complete)
            if frame is not None:
                yield frame

    def _header_length(self, data: bytearray) -> None:
        size = int.from_bytes(data, "big")
        if size > constants.MAX_HEADER_SIZE:
            raise RemoteProtocolError(f"a header of {size} bytes is over the cap of {constants.MAX_HEADER_SIZE}")
        self._needed, self._step = size, self._header

    def _header(self, data: bytearray) -> None:
        header = parse(pb.Header, bytes(data))
        if header.compression not in (pb.NONE, pb.LZ4):
            raise RemoteProtocolError(f"unknown message compression {header.compression}")
        self._type, self._compressed = header.type, header.compression == pb.LZ4
        self._needed, self._step = 4, self._message_length

    def _message_length(self, data: bytearray) -> None:
        size = int.from_bytes(data, "big")
        cap = size_cap(self._type)
        if size > cap:
            raise RemoteProtocolError(f"a message of {size} bytes is over the cap of {cap}")
        self._needed, self._step = size, self._message

    def _message(self, data: bytearray) -> Frame:
        self._needed, self._step = 2, self._header_length
        start = lz4_start(data, _START) if self._compressed else bytes(data[:_START])
        if self._is_unwanted(self._type, start):
            return Frame(self._type, b"", unwanted=True)
        return Frame(self._type, decompress(data, size_cap(self._type)) if self._compressed else data)


def size_cap(message_type: int) -> int:
    """Return the largest size that is accepted of a message of this type, in bytes."""
    if message_type in (pb.INDEX, pb.INDEX_UPDATE):
        return constants.MAX_INDEX_SIZE
    return constants.MAX_CLUSTER_CONFIG_SIZE if message_type == pb.CLUSTER_CONFIG else constants.MAX_OTHER_MESSAGE_SIZE


def decompress(data: bytes | bytearray, cap: int) -> bytes:
    """Decompress the body of an LZ4 message.

    Raises RemoteProtocolError where the stated size is over `cap`, impossible, or not that of the body.
    """
    if len(data) < 4:
        raise RemoteProtocolError("an LZ4 message without its size")
    size = int.from_bytes(data[:4], "big")
    if size > cap:
        raise RemoteProtocolError(f"an LZ4 message of {size} bytes is over the cap of {cap}")
    if size > (len(data) - 4) * constants.LZ4_MAX_RATIO + 16:
        raise RemoteProtocolError(f"an LZ4 message of {len(data)} bytes cannot hold the {size} that it states")
    try:
        body: bytes = lz4.block.decompress(memoryview(data)[4:], uncompressed_size=size)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise RemoteProtocolError(f"an LZ4 message that does not decompress: {error}") from error
    if len(body) != size:
        raise RemoteProtocolError(f"an LZ4 message states {size} bytes and holds {len(body)}")
    return body


def lz4_start(data: bytes | bytearray, count: int) -> bytes:
    """Return the first `count` bytes of the body of an LZ4 message, or fewer where its data is shorter or damaged.

    An LZ4 block is a row of literals and matches; a match repeats bytes from up to 64 KiB before (LZ4 Block Format).
    """
    out = bytearray()
    position = 4
    while position < len(data) and len(out) < count:
        token = data[position]
        literals, position = _lz4_length(data, position + 1, token >> 4)
        out += data[position : position + min(literals, count)]
        position += literals
        if position + 2 > len(data) or len(out) >= count:
            break
        distance = int.from_bytes(data[position : position + 2], "little")
        length, position = _lz4_length(data, position + 2, token & 15)
        if not 0 < distance <= len(out):
            break
        for _ in range(min(length + 4, count - len(out))):
            out.append(out[-distance])
    return bytes(out[:count])


def _lz4_length(data: bytes | bytearray, position: int, length: int) -> tuple[int, int]:
    """Return a length that begins with these four bits, and the position after it."""
    if length == 15:
        while position < len(data):
            more = data[position]
            position += 1
            length += more
            if more != 255:
                break
    return length, position
