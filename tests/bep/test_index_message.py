from __future__ import annotations

import time
import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import file
from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.bep.index_message import check_shape, decode_index
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


def memory_and_time(data: bytes) -> tuple[int, float]:
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(RemoteProtocolError):
            check_shape(data)
            parse_file_info(data)
        return tracemalloc.get_traced_memory()[1], time.process_time() - started
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "entry", [b"\x82\x01\x00", b"\x82\x81\x00\x00", b"\x82\x01\x02\x10\x01"], ids=["empty", "long tag", "size"]
)
def test_millions_of_blocks_that_are_none(entry: bytes) -> None:
    raw = entry * (4_000_000 // len(entry))
    memory, _ = memory_and_time(raw)
    assert memory < limits.MIB


def test_a_version_of_millions_of_counters() -> None:
    memory, _ = memory_and_time(
        pb.FileInfo(name="n", version=pb.Vector(counters=[pb.Counter()] * 100_000)).SerializeToString()
    )
    assert memory < limits.MIB


def test_millions_of_file_infos() -> None:
    with pytest.raises(RemoteProtocolError, match="more than 20000 file infos"):
        decode_index(b"\x12\x00" * 1_000_000)
    assert len(decode_index(b"\x12\x00" * limits.MAX_INDEX_FILES)[1]) == limits.MAX_INDEX_FILES


def test_real_file_infos_of_every_size_pass() -> None:
    for blocks in (1, 100, 5000):
        check_shape(file("a", sizes=(131_112,) * blocks).raw)


@pytest.mark.parametrize(
    "end", [b"\x08", b"\x12\x05ab", b"\x0f", b"\x03", b"\x00\x00", b"\x0a\x01\xff", b"\x18" + b"\xff" * 11, b"\x0d\x00"]
)
def test_what_is_no_message(end: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="an Index that is none"):
        decode_index(b"\x18\x01" + end)
