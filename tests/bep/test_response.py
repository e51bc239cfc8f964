"""Responses are coded as the general library does it, without copies."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from tests.bep.counting import Counting
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.events import ResponseReceived
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.bep.response import decode_response, encode_response
from untrusted_s3.bep.wire import Buffer
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError

INT32_MAX = 2**31 - 1
ids = st.sampled_from([0, 1, 127, 128, INT32_MAX]) | st.integers(0, INT32_MAX)
codes = st.sampled_from(pb.ErrorCode.values())


def body_of(request_id: int, data: Buffer, code: int) -> bytes:
    """The Response alone, without the frame's header and lengths."""
    frame = b"".join(encode_response(request_id, data, code))
    assert frame[:4] == b"\0\x02\x08\x04"
    assert int.from_bytes(frame[4:8], "big") == len(frame) - 8
    return frame[8:]


@given(request_id=ids | st.integers(-(2**31), -1), data=st.binary(max_size=300), code=codes)
@example(request_id=0, data=b"", code=pb.NO_ERROR)
@example(request_id=INT32_MAX, data=b"d", code=pb.INVALID_FILE)
@example(request_id=-1, data=b"d", code=pb.NO_ERROR)
def test_encoded_as_protobuf_encodes(request_id: int, data: bytes, code: pb.ErrorCode) -> None:
    expected = pb.Response(id=request_id, data=data, code=code).SerializeToString()
    assert b"".join(encode_response(request_id, data, code)) == encode_frame(pb.RESPONSE, expected)


@given(request_id=ids | st.integers(-(2**31), -1), data=st.binary(max_size=300), code=codes)
def test_protobuf_is_decoded(request_id: int, data: bytes, code: pb.ErrorCode) -> None:
    response = decode_response(pb.Response(id=request_id, data=data, code=code).SerializeToString())
    assert response == ResponseReceived(request_id, memoryview(data), code)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_data_is_a_view_of_the_body(kind: type[bytes] | type[bytearray]) -> None:
    body = kind(body_of(7, b"x" * 1000, 0))
    response = decode_response(body)
    assert response.data.obj is body
    assert response.data == b"x" * 1000


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_data_is_not_copied_for_sending(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    data = kind(b"x" * 1000)
    assert any(piece is data for piece in encode_response(7, data, 0))


def test_no_empty_pieces() -> None:
    for data in (b"", b"d"):
        for code in (0, 1):
            assert all(len(piece) for piece in encode_response(0, data, code))


def test_response_over_the_cap() -> None:
    data = bytes(constants.MAX_MESSAGE_SIZE)
    with pytest.raises(LocalProtocolError, match="over the cap"):
        encode_response(0, data, 0)


# What the quick decoder leaves to the general one

UNKNOWN_FIELDS = [b"\x20\x01", b"\x22\x03abc", b"\x2d\0\0\0\0", b"\x31" + bytes(8), b"\xf8\x7d\x01"]


@pytest.mark.parametrize("unknown", UNKNOWN_FIELDS)
@pytest.mark.parametrize("first", [True, False])
def test_unknown_fields_are_passed_over(unknown: bytes, first: bool) -> None:
    usual = body_of(5, b"block", pb.GENERIC)
    response = decode_response(unknown + usual if first else usual + unknown)
    assert response == ResponseReceived(5, memoryview(b"block"), pb.GENERIC)


def test_the_last_of_repeated_fields_counts() -> None:
    response = decode_response(body_of(5, b"first", 1) + body_of(6, b"last", 2))
    assert response == ResponseReceived(6, memoryview(b"last"), 2)


def test_fields_in_another_order() -> None:
    response = decode_response(b"\x18\x02" + b"\x12\x01d" + b"\x08\x09")
    assert response == ResponseReceived(9, memoryview(b"d"), 2)


@pytest.mark.parametrize(
    "body",
    [
        b"\x08",
        b"\x08\xff",
        b"\x12\x05abc",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x00\x01",
        b"\x0f",
        b"\x22\x7f",
    ],
)
def test_garbage_is_the_peers_fault(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Response"):
        decode_response(body)


wire_fields = st.sampled_from(
    [b"\x08\x05", b"\x08\xff\xff\xff\xff\x0f", b"\x12\x00", b"\x12\x03abc", b"\x18\x01", b"\x18\x63", *UNKNOWN_FIELDS]
)


@given(st.lists(wire_fields | st.binary(max_size=6), max_size=6).map(b"".join))
def test_decodes_exactly_what_protobuf_does(body: bytes) -> None:
    try:
        expected = pb.Response.FromString(body)
    except DecodeError:
        with pytest.raises(RemoteProtocolError):
            decode_response(body)
        return
    response = decode_response(body)
    assert response == ResponseReceived(expected.id, memoryview(expected.data), expected.code)


@pytest.mark.parametrize("field", [b"\x08\x01", b"\x12\x00", b"\x18\x01"])
def test_millions_of_fields_are_not_walked(field: bytes) -> None:
    body = Counting(field * 1_000_000)
    with pytest.raises(RemoteProtocolError, match="too many fields"):
        decode_response(body)
    assert body.steps <= 4 * constants.MAX_RESPONSE_FIELDS


def test_millions_of_unknown_fields_are_left_to_the_general_decoder() -> None:
    body = Counting(b"\x20\x01" * 1_000_000 + body_of(5, b"block", pb.NO_ERROR))
    assert decode_response(body) == ResponseReceived(5, memoryview(b"block"), pb.NO_ERROR)
    assert body.steps <= 4 * constants.MAX_RESPONSE_FIELDS
