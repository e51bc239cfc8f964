"""Index messages are decoded as the general library does it, with less memory."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.bep.counting import Counting
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.index_message import decode_index
from untrusted_s3.errors import RemoteProtocolError

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.text(), st.lists(st.binary()), INT64, INT64)
def test_as_protobuf_writes_it(folder: str, files: list[bytes], last: int, prev: int) -> None:
    message = pb.Index(folder=folder, files=files, last_sequence=last, prev_sequence=prev)
    assert decode_index(bytearray(message.SerializeToString())) == (folder, tuple(files), last, prev)


@given(
    st.binary()
    | st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x18", b"\x20", b"\x01", b"\x7f", b"\xff"])).map(b"".join)
)
def test_what_is_taken_is_what_protobuf_takes(data: bytes) -> None:
    try:
        expected = pb.Index.FromString(data)
    except DecodeError:
        expected = None
    try:
        taken = decode_index(data)
    except RemoteProtocolError:
        return
    if expected is not None:
        assert taken == (expected.folder, tuple(expected.files), expected.last_sequence, expected.prev_sequence)


def test_millions_of_file_infos() -> None:
    with pytest.raises(RemoteProtocolError, match="more than 20000 file infos"):
        decode_index(b"\x12\x00" * 1_000_000)
    assert len(decode_index(b"\x12\x00" * constants.MAX_INDEX_FILES)[1]) == constants.MAX_INDEX_FILES


@pytest.mark.parametrize("field", [b"\x0a\x00", b"\x18\x01", b"\x28\x01", b"\x2d\0\0\0\0", b"\xf8\x7d\x01"])
def test_millions_of_other_fields_are_not_walked(field: bytes) -> None:
    data = Counting(field * 200_000)
    with pytest.raises(RemoteProtocolError, match="too many fields"):
        decode_index(data)
    assert data.steps <= 5 * constants.MAX_INDEX_FIELDS


@pytest.mark.parametrize(
    "end", [b"\x08", b"\x12\x05ab", b"\x0f", b"\x03", b"\x00\x00", b"\x0a\x01\xff", b"\x18" + b"\xff" * 11, b"\x0d\x00"]
)
def test_what_is_no_message(end: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Index"):
        decode_index(b"\x18\x01" + end)
