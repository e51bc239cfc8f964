"""The format of log segments, and what is refused."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, entry, file, plaintext
from untrusted_s3.bep import bep_pb2 as bep
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import DataError, FolderRefused, RemoteProtocolError
from untrusted_s3.index import segment_pb2 as pb
from untrusted_s3.index.entry import Entry, PeerCursor, StoredObject
from untrusted_s3.index.segment import EMPTY_SEGMENT, MAGIC, Segment, decode_segment, encode_segment

KEY = "folders/f/log/00000000000000000007"
UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
STORED = st.builds(
    StoredObject,
    content_hash=st.text("0123456789abcdef", min_size=32, max_size=32),
    size=st.integers(1, 2**63),
    part_size=UINT64,
    part_crc32c=st.lists(UINT32, max_size=4).map(tuple),
)
NUMBERS = st.integers(0, 50)
ENTRIES = (
    st.builds(lambda name, version, stored: Entry(file(name, version), stored), NUMBERS, NUMBERS, STORED)
    | st.builds(lambda name, version: entry(directory(name, version)), NUMBERS, NUMBERS)
    | st.builds(lambda name, version: entry(deleted(name, version)), NUMBERS, NUMBERS)
)
SEGMENTS = st.builds(
    Segment,
    writer=st.builds(DeviceID, st.binary(min_size=32, max_size=32)),
    append_id=st.binary(min_size=16, max_size=16),
    time_ms=st.integers(-(2**63), 2**63 - 1),
    first_sequence=st.integers(1, 2**62),
    entries=st.lists(ENTRIES, max_size=4).map(tuple),
    cursors=st.lists(
        st.builds(PeerCursor, st.builds(device, NUMBERS), index_id=UINT64, sequence=st.integers(0, 2**63 - 1)),
        max_size=3,
    ).map(tuple),
)
SEGMENT = Segment(
    device(1),
    bytes(16),
    1_700_000_000_000,
    5,
    (entry(file("a")), entry(directory("b"))),
    (PeerCursor(device(2), 3, 4),),
)


@given(SEGMENTS)
def test_round_trip(segment: Segment) -> None:
    assert decode_segment(encode_segment(segment), KEY) == segment


@pytest.mark.parametrize(("entries", "last"), [((), 4), (SEGMENT.entries, 6)])
def test_last_sequence(entries: tuple[Entry, ...], last: int) -> None:
    assert dataclasses.replace(SEGMENT, entries=entries).last_sequence == last


def test_the_format_byte_by_byte() -> None:
    body = encode_segment(SEGMENT)
    assert body[:8] == b"US3SEG\x00\x01"
    assert body[-4:] == struct.pack(">I", crc32c.crc32c(body[:-4]))
    message = pb.Segment.FromString(body[8:-4])
    assert message.entries[0].file_info == SEGMENT.entries[0].file_info.raw
    assert not message.entries[1].content_hash


def test_a_file_info_stays_as_it_was_received() -> None:
    raw = file("a").raw + b"\xfa\x7c\x01z"  # a field that nobody knows
    parsed = dataclasses.replace(file("a"), raw=raw)
    segment = dataclasses.replace(SEGMENT, entries=(Entry(parsed, None),))
    assert decode_segment(encode_segment(segment), KEY).entries[0].file_info.raw == raw


def test_every_flipped_bit_is_found() -> None:
    body = encode_segment(SEGMENT)
    for bit in range(8 * len(body)):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError, match=KEY):
            decode_segment(bytes(damaged), KEY)


def test_every_truncation_and_every_excess_is_found() -> None:
    body = encode_segment(SEGMENT)
    assert decode_segment(b"", KEY) is EMPTY_SEGMENT
    for size in range(1, len(body)):
        with pytest.raises(DataError, match=KEY):
            decode_segment(body[:size], KEY)
    with pytest.raises(DataError, match=KEY):
        decode_segment(body + b"\0", KEY)


def sealed(message: bytes, magic: bytes = MAGIC) -> bytes:
    return magic + message + struct.pack(">I", crc32c.crc32c(magic + message))


def test_another_version_of_the_format_is_told_from_damage() -> None:
    message = encode_segment(SEGMENT)[8:-4]
    with pytest.raises(DataError, match="format version"):
        decode_segment(sealed(message, b"US3SEG\x00\x02"), KEY)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        pb.Segment(writer=b"short", first_sequence=1).SerializeToString(),
        pb.Segment(writer=bytes(32), cursors=[pb.PeerCursor(device_id=b"short")]).SerializeToString(),
        pb.Segment(writer=bytes(32), entries=[pb.Entry(file_info=b"\xff")]).SerializeToString(),
        pb.Segment(writer=bytes(32), entries=[pb.Entry(file_info=plaintext("a.txt"))]).SerializeToString(),
    ],
    ids=["not protobuf", "writer", "cursor", "no file info", "plaintext"],
)
def test_sound_bytes_that_say_nonsense(message: bytes) -> None:
    with pytest.raises(DataError, match=KEY):
        decode_segment(sealed(message), KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.ClearField("blocks"),
        lambda info: setattr(info.blocks[0], "size", 5),
        lambda info: setattr(info.blocks[0], "hash", b"a token of another length"),
        lambda info: setattr(info, "name", "another form of encrypted names"),
        lambda info: setattr(info, "encrypted", bytes(2 << 20)),
    ],
    ids=["no blocks", "block size", "token", "name", "long"],
)
def test_limits_for_peers_do_not_apply_to_the_log(change: Callable[[bep.FileInfo], object]) -> None:
    """They may be stricter one day than when the entry was written."""
    info = bep.FileInfo.FromString(file("a").raw)
    change(info)
    raw = info.SerializeToString()
    with pytest.raises((RemoteProtocolError, FolderRefused)):
        parse_file_info(raw)
    message = pb.Segment(writer=bytes(32), entries=[pb.Entry(file_info=raw)])
    (found,) = decode_segment(sealed(message.SerializeToString()), KEY).entries
    assert (found.file_info.raw, found.file_info.message) == (raw, info)
