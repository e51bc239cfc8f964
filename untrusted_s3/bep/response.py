"""The Response message (BEP specification, "Response").

It carries all file data, and a general encoder or decoder would copy every block twice. So this module writes and reads
its fields itself: 1 id (varint), 2 data (length-delimited), 3 code (varint).
"""

from __future__ import annotations

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.events import ResponseReceived
from untrusted_s3.bep.framing import frame_head
from untrusted_s3.bep.wire import Buffer, decode_varint, encode_varint, parse
from untrusted_s3.errors import RemoteProtocolError

_ID, _DATA, _CODE = 0x08, 0x12, 0x18


def encode_response(request_id: int, data: Buffer, code: int) -> list[Buffer]:
    """Return the frame of a Response in pieces to send one after the other; `data` is not copied."""
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


def response_id(start: bytes) -> int | None:
    """Return the id of a Response whose body begins with these bytes.

    The id is the first field, as every encoder writes it, or missing, which means 0. None where another field comes
    first or the bytes end before the id does.
    """
    if start[:1] == bytes([_DATA]) or start[:1] == bytes([_CODE]) or not start:
        return 0
    if start[0] != _ID:
        return None
    try:
        return decode_varint(start, 1)[0]
    except ValueError:
        return None


def decode_response(body: bytes | bytearray) -> ResponseReceived:
    """Decode the body of a Response; the data in the event is a view of `body`. Raises RemoteProtocolError."""
    try:
        return _decode_usual_fields(body)
    except ValueError:
        # An unknown field or garbage: the general decoder accepts the one and refuses the other.
        message = parse(pb.Response, bytes(body))
        return ResponseReceived(message.id, memoryview(message.data), message.code)


def _decode_usual_fields(body: bytes | bytearray) -> ResponseReceived:
    request_id = code = position = 0
    data = memoryview(b"")
    count = 0
    while position < len(body):
        count += 1
        if count > constants.MAX_RESPONSE_FIELDS:
            raise RemoteProtocolError("a response of too many fields")
        tag = body[position]
        if tag not in (_ID, _DATA, _CODE):
            raise ValueError(f"field tag {tag}")
        value, position = decode_varint(body, position + 1)
        if tag == _DATA:
            end = position + value
            if end > len(body):
                raise ValueError("the data ends after the message")
            data = memoryview(body)[position:end]
            position = end
        elif value > 0x7FFFFFFF:
            raise ValueError("a number outside the range of int32, or negative")
        elif tag == _ID:
            request_id = value
        else:
            code = value
    return ResponseReceived(request_id, data, code)
