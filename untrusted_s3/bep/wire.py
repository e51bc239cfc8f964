"""Protobuf's wire format: what several messages share (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from untrusted_s3.errors import RemoteProtocolError

Buffer = bytes | bytearray | memoryview
MessageType = TypeVar("MessageType", bound=Message)

# Wire types; the others are 1 (fixed, 8 bytes) and 5 (fixed, 4 bytes). Groups, 3 and 4, are not accepted.
VARINT = 0
LENGTH_DELIMITED = 2

_64_BITS = 0xFFFF_FFFF_FFFF_FFFF


def parse(kind: type[MessageType], data: bytes | bytearray) -> MessageType:
    """Parse one message of a type. Raises RemoteProtocolError."""
    try:
        # FromString takes a bytearray as well; the stubs do not say so. Copying a large index would double its memory.
        return kind.FromString(cast(bytes, data))
    except DecodeError as error:
        raise RemoteProtocolError(f"invalid {kind.DESCRIPTOR.name}: {error}") from error


def encode_varint(value: int) -> bytes:
    """Encode an integer; a negative one as 64 bits in two's complement."""
    value &= _64_BITS
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: Buffer, position: int) -> tuple[int, int]:
    """Return the varint at `position` and the position after it. Raises ValueError where it does not end."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a varint does not end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def fields(
    data: bytes | bytearray, most: int, position: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Walk over the fields of a message: number, wire type, value and start of each.

    The value of a length-delimited field is its length, and its bytes begin at the start; the value of a fixed one is
    0. Nothing is copied. The message is all of `data`, or what lies between `position` and `end`.

    Raises ValueError for bytes that are not a message. Raises RemoteProtocolError after `most` fields: a field may have
    two bytes, so a message that is short on the wire can have millions, and this loop is slow.
    """
    if end is None:
        end = len(data)
    while position < end:
        if most <= 0:
            raise RemoteProtocolError("a message of too many fields")
        most -= 1
        tag = data[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = decode_varint(data, position)
        wire_type = tag & 7
        if not 8 <= tag < 1 << 32:
            raise ValueError(f"field tag {tag}")
        if wire_type in (0, 2):  # the names are globals, which are slower
            if position < end and data[position] < 0x80:
                value = data[position]
                position += 1
            else:
                value, position = decode_varint(data, position)
                value &= _64_BITS
            start = position
            if wire_type == 2:
                position += value
        elif wire_type in (1, 5):
            value, start = 0, position
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise ValueError("a field ends after the message")
        yield tag >> 3, wire_type, value, start
