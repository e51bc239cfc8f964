"""The Response message, coded by hand: it carries all file data, and a general decoder would copy every block twice.

Fields (BEP specification, "Response"): 1 id (varint), 2 data (length-delimited), 3 code (varint).
"""

from __future__ import annotations

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import ResponseReceived
from untrusted_s3.bep.framing import Buffer, frame_head, parse

_ID, _DATA, _CODE = 0x08, 0x12, 0x18


def encode_varint(value: int) -> bytes:
    """`value` as a protobuf varint; a negative one as 64 bits in two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: Buffer, position: int) -> tuple[int, int]:
    """The varint at `position` and the position after it. Raises ValueError where it does not end."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a varint without end")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def encode_response(request_id: int, data: Buffer, code: int) -> list[Buffer]:
    """The whole frame of a Response in pieces to send one after the other; `data` is not copied."""
    head = b""
    if request_id:
        head += b"\x08" + encode_varint(request_id)
    if len(data):
        head += b"\x12" + encode_varint(len(data))
    tail = b"\x18" + encode_varint(code) if code else b""
    pieces: list[Buffer] = [frame_head(pb.RESPONSE, len(head) + len(data) + len(tail)) + head]
    if len(data):
        pieces.append(data)
    if tail:
        pieces.append(tail)
    return pieces


def decode_response(body: bytes | bytearray) -> ResponseReceived:
    """The Response in `body`; its data is a view of `body`. Raises RemoteProtocolError where there is none."""
    try:
        return _decode_usual_fields(body)
    except ValueError:
        # Unknown fields, or garbage: the general decoder knows.
        message = parse(pb.Response, bytes(body))
        return ResponseReceived(message.id, memoryview(message.data), message.code)


def _decode_usual_fields(body: bytes | bytearray) -> ResponseReceived:
    request_id = code = position = 0
    data = memoryview(b"")
    while position < len(body):
        tag = body[position]
        if tag not in (_ID, _DATA, _CODE):
            raise ValueError(f"field tag {tag}")
        value, position = decode_varint(body, position + 1)
        if tag == _DATA:
            end = position + value
            if end > len(body):
                raise ValueError("data past the end")
            data = memoryview(body)[position:end]
            position = end
        elif value > 0x7FFFFFFF:
            raise ValueError("not an int32 above zero")
        elif tag == _ID:
            request_id = value
        else:
            code = value
    return ResponseReceived(request_id, data, code)
