"""Protobuf's wire format, and that it is the one of the general library."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.bep.counting import Counting
from tests.file_infos import file
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.wire import LENGTH_DELIMITED, VARINT, decode_varint, encode_varint, fields, parse
from untrusted_s3.errors import RemoteProtocolError

INT32_MAX = 2**31 - 1

# Varints


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (INT32_MAX, "ffffffff07"),
        (2**64 - 1, "ffffffffffffffffff01"),
        (-1, "ffffffffffffffffff01"),
        (-(2**31), "80808080f8ffffffff01"),
    ],
)
def test_varints(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded
    assert decode_varint(bytes.fromhex(encoded), 0) == (value % 2**64, len(encoded) // 2)


@given(value=st.integers(0, 2**64 - 1), before=st.binary(max_size=4), after=st.binary(max_size=4))
def test_varint_round_trip(value: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(value)
    assert decode_varint(before + encoded + after, len(before)) == (value, len(before) + len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 10 + b"\x01", b"\x80" * 100_000])
def test_varint_without_end(data: bytes) -> None:
    with pytest.raises(ValueError, match="does not end"):
        decode_varint(data, 0)


# Fields


@given(st.binary(max_size=300), st.integers(0, 2**63 - 1), st.text(max_size=200))
def test_fields_of_a_message(token: bytes, sequence: int, reason: str) -> None:
    message = pb.FileInfo(name=reason, sequence=sequence, encrypted=token)
    raw = message.SerializeToString() + b"\xad\x03abcd\xc9\x0512345678"  # a fixed32 and a fixed64 that nobody knows
    walked = list(fields(raw, 100))
    texts = {number: raw[start : start + value] for number, kind, value, start in walked if kind == LENGTH_DELIMITED}
    assert texts == {number: value for number, value in ((1, reason.encode()), (19, token)) if value}
    assert [value for _, kind, value, _ in walked if kind == VARINT] == [sequence][: sequence > 0]
    assert [raw[start : start + 4] for number, _, _, start in walked if number in (53, 89)] == [b"abcd", b"1234"]


@given(st.binary(max_size=200) | st.binary(max_size=20).map(lambda end: file("a").raw + end))
def test_whatever_the_library_parses_can_be_walked(data: bytes) -> None:
    try:
        pb.FileInfo.FromString(data)
    except DecodeError:
        return
    if not any(byte & 7 in (3, 4) for byte in data):  # groups, which nobody sends
        assert all(0 < number < 2**29 and 0 <= start <= len(data) for number, _, _, start in fields(data, 1000))


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x02a", b"\x0d123", b"\x09", b"\x00\x01", b"\x0b", b"\x08", b"\x80"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    with pytest.raises(ValueError):
        list(fields(data, 100))


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_walk_ends_after_so_many_fields(count: int, most: int) -> None:
    data = Counting(b"\x08\x01" * count)
    walked = 0
    try:
        for _ in fields(data, most):
            walked += 1
    except RemoteProtocolError as error:
        assert "too many fields" in str(error)
        assert count > most
    assert walked == min(count, most)
    assert data.steps <= 4 * most


def test_a_walk_over_a_part() -> None:
    inner = pb.FileInfo(sequence=7).SerializeToString()
    assert [field[:3] for field in fields(b"\xff\xff" + inner + b"\xff", 5, 2, 2 + len(inner))] == [(10, VARINT, 7)]
    with pytest.raises(ValueError):
        list(fields(b"\x0a\x05abcde", 5, 0, 4))


# Messages


def test_parse_names_the_message_that_is_none() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid ClusterConfig"):
        parse(pb.ClusterConfig, b"\x0a\xff")


def test_parse_refuses_names_that_are_no_utf_8() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Request"):
        parse(pb.Request, b"\x1a\x01\xff")
