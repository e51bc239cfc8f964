"""The format of log segments, and what is refused."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, entry, file, plaintext
from untrusted_s3.bep import bep_pb2 as bep
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import DataError, FileInfoRefused, FolderRefused, RemoteProtocolError
from untrusted_s3.index import segment_pb2 as pb
from untrusted_s3.index.entry import (
    MAX_TIME_MS,
    Confirmation,
    DeclinedVersion,
    Dissent,
    Entry,
    EntryClaims,
    PeerCursor,
    Removal,
    Renewal,
    StoredObject,
)
from untrusted_s3.index.segment import EMPTY_SEGMENT, MAGIC, Segment, decode_segment, encode_segment

SOUND: dict[str, Any] = {"writer": bytes(32), "append_id": bytes(16), "first_sequence": 1}
KEY = "folders/f/log/00000000000000000007"
UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
HASHES = st.text("0123456789abcdef", min_size=32, max_size=32)
STORED = st.builds(
    lambda name, size, crc: StoredObject(name, size, 0, (crc,)), HASHES, st.integers(1065, 2**56), UINT32
) | st.builds(
    lambda name, part_size, last, crcs: StoredObject(
        name, part_size * (len(crcs) - 1) + min(last, part_size), part_size, tuple(crcs)
    ),
    HASHES,
    st.integers(1065, 2**50),
    st.integers(1065, 2**50),
    st.lists(UINT32, min_size=1, max_size=4),
)
NUMBERS = st.integers(0, 50)
SOURCES = st.none() | st.builds(device, NUMBERS)
ENTRIES = (
    st.builds(
        lambda name, version, stored, source: Entry(file(name, version), stored, source),
        NUMBERS,
        NUMBERS,
        STORED,
        SOURCES,
    )
    | st.builds(lambda name, version: entry(directory(name, version)), NUMBERS, NUMBERS)
    | st.builds(lambda name, version: entry(deleted(name, version)), NUMBERS, NUMBERS)
)
CLAIMS = st.builds(
    EntryClaims,
    st.lists(st.integers(0, 9).map(device), max_size=2, unique=True).map(tuple),
    st.lists(st.integers(100, 102), max_size=2, unique=True).map(
        lambda versions: tuple(Dissent(entry(file("a", one)), (device(one), device(one + 9))) for one in versions)
    ),
)
CLAIMED = st.builds(
    lambda claims, declined: dataclasses.replace(
        entry(file("a", 7)),
        claims=dataclasses.replace(
            claims, declined=tuple(one for one in declined if one.version <= len(claims.dissents))
        ),
    ),
    CLAIMS,
    st.lists(
        st.builds(
            DeclinedVersion,
            st.builds(device, NUMBERS),
            st.integers(0, 2),
            st.integers(0, MAX_TIME_MS),
            st.integers(1, 2**32 - 1),
            st.booleans(),
        ),
        max_size=3,
        unique_by=lambda one: (one.device_id, one.version),
    ),
)
CONFIRMATIONS = st.builds(
    Confirmation.of,
    st.builds(device, NUMBERS),
    st.sets(st.integers(1, 50) | st.integers(1, 2**63 - 2), min_size=1).map(sorted),
)
REMOVALS = st.builds(Removal, st.binary(min_size=16, max_size=16), st.just("") | HASHES)
SEGMENTS = st.builds(
    Segment,
    writer=st.builds(DeviceID, st.binary(min_size=32, max_size=32)),
    append_id=st.binary(min_size=16, max_size=16),
    time_ms=st.integers(0, MAX_TIME_MS),
    first_sequence=st.integers(1, 2**62),
    entries=st.lists(ENTRIES | CLAIMED, max_size=4).map(tuple),
    cursors=st.lists(
        st.builds(PeerCursor, st.builds(device, NUMBERS), index_id=UINT64, sequence=st.integers(0, 2**63 - 1)),
        max_size=3,
    ).map(tuple),
    renewal=st.none()
    | st.builds(
        Renewal,
        st.integers(1, 2**63 - 1),
        st.lists(REMOVALS, max_size=3, unique_by=lambda removal: removal.name_hash).map(tuple),
    ),
    confirmations=st.lists(CONFIRMATIONS, max_size=2).map(tuple),
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
    assert body[:8] == b"US3SEG\x00\x02"
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
        decode_segment(sealed(message, b"US3SEG\x00\x03"), KEY)


def test_a_segment_of_version_1_is_read() -> None:
    message = encode_segment(SEGMENT)[8:-4]
    assert decode_segment(sealed(message, b"US3SEG\x00\x01"), KEY) == SEGMENT


@pytest.mark.parametrize(
    "segment",
    [
        dataclasses.replace(SEGMENT, renewal=Renewal(1)),
        dataclasses.replace(SEGMENT, entries=(Entry(file("a"), None, device(1)),)),
        dataclasses.replace(SEGMENT, entries=(Entry(file("a"), None, None, EntryClaims()),)),
        dataclasses.replace(SEGMENT, confirmations=(Confirmation.of(device(2), [1, 2, 5]),)),
    ],
)
def test_a_segment_of_version_1_has_nothing_that_its_readers_pass_over(segment: Segment) -> None:
    message = encode_segment(segment)[8:-4]
    assert decode_segment(sealed(message), KEY) == segment
    with pytest.raises(DataError, match="later format version"):
        decode_segment(sealed(message, b"US3SEG\x00\x01"), KEY)


@pytest.mark.parametrize(
    "renewal",
    [
        pb.Renewal(),
        pb.Renewal(index_id=2**63),
        pb.Renewal(index_id=1, removals=[pb.Removal()]),
        pb.Renewal(index_id=1, removals=[pb.Removal(name_hash=bytes(15))]),
        pb.Renewal(index_id=1, removals=[pb.Removal(name_hash=bytes(17))]),
        pb.Renewal(index_id=1, removals=[pb.Removal(name_hash=bytes(16))] * 2),
        pb.Renewal(index_id=1, removals=[pb.Removal(name_hash=bytes(16), missing_object="../" * 11)]),
    ],
    ids=str,
)
def test_a_renewal_that_no_gateway_writes_is_refused(renewal: pb.Renewal) -> None:
    with pytest.raises(DataError, match=KEY):
        decode_segment(sealed(pb.Segment(**SOUND, renewal=renewal).SerializeToString()), KEY)


OTHER = pb.Entry(file_info=file("a", 2).raw)
CLAIMANT, SECOND = (device(number).raw for number in (2, 3))
DECLINED: dict[str, Any] = {"device_id": CLAIMANT, "times": 1}


@pytest.mark.parametrize(
    "claims",
    [
        {"claimed_by": [b"short"]},
        {"claimed_by": [CLAIMANT, CLAIMANT]},
        {"claimed_by": [CLAIMANT], "dissents": [pb.Dissent(version=OTHER, claimed_by=[CLAIMANT])]},
        {"dissents": [pb.Dissent(version=OTHER)]},
        {"dissents": [pb.Dissent(claimed_by=[CLAIMANT])]},
        {"dissents": [pb.Dissent(version=pb.Entry(file_info=file("b", 2).raw), claimed_by=[CLAIMANT])]},
        {"dissents": [pb.Dissent(version=pb.Entry(file_info=file("a").raw), claimed_by=[CLAIMANT])]},
        {"dissents": [pb.Dissent(version=OTHER, claimed_by=[one]) for one in (CLAIMANT, SECOND)]},
        {
            "dissents": [
                pb.Dissent(version=pb.Entry(file_info=OTHER.file_info, claims=pb.Claims()), claimed_by=[CLAIMANT])
            ]
        },
        {"declined": [pb.Declined(**DECLINED, version=1)]},
        {"declined": [pb.Declined(**DECLINED)] * 2},
        {"declined": [pb.Declined(device_id=CLAIMANT)]},
        {"declined": [pb.Declined(times=1)]},
        {"declined": [pb.Declined(**DECLINED, time_ms=-1)]},
        {"declined": [pb.Declined(**DECLINED, time_ms=MAX_TIME_MS + 1)]},
    ],
    ids=lambda claims: " ".join(str(claims).split()),
)
def test_claims_that_no_gateway_writes_are_refused(claims: dict[str, Any]) -> None:
    sound = pb.Claims(
        claimed_by=[SECOND],
        dissents=[pb.Dissent(version=OTHER, claimed_by=[CLAIMANT])],
        declined=[pb.Declined(**DECLINED), pb.Declined(**DECLINED, version=1)],
    )
    for message in (sound, pb.Claims(**claims)):
        body = pb.Segment(**SOUND, entries=[pb.Entry(file_info=file("a").raw, claims=message)]).SerializeToString()
        if message is sound:
            decode_segment(sealed(body), KEY)
            continue
        with pytest.raises(DataError, match=KEY):
            decode_segment(sealed(body), KEY)


@pytest.mark.parametrize(
    "ranges",
    [[], [1], [0, 1], [1, 0], [1, 1, 0, 1], [1, 1, 1], [1, 2**63 - 1], [2**63, 1], [2**64 - 1, 2**64 - 1]],
    ids=str,
)
def test_a_confirmation_that_no_gateway_writes_is_refused(ranges: list[int]) -> None:
    for device_id, some in ((bytes(32), ranges), (bytes(31), [1, 1])):
        message = pb.Segment(**SOUND, confirmations=[pb.Confirmation(device_id=device_id, ranges=some)])
        with pytest.raises(DataError, match=KEY):
            decode_segment(sealed(message.SerializeToString()), KEY)


def test_the_ranges_of_a_confirmation() -> None:
    confirmation = Confirmation.of(device(2), [3, 4, 5, 9, 10, 2**63 - 2])
    assert confirmation.sequences == (range(3, 6), range(9, 11), range(2**63 - 2, 2**63 - 1))
    segment = dataclasses.replace(SEGMENT, confirmations=(confirmation,))
    (message,) = pb.Segment.FromString(encode_segment(segment)[8:-4]).confirmations
    assert message.ranges == [3, 3, 3, 2, 2**63 - 2 - 11, 1]


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        pb.Segment(**{**SOUND, "writer": b"short"}).SerializeToString(),
        pb.Segment(**SOUND, cursors=[pb.PeerCursor(device_id=b"short")]).SerializeToString(),
        pb.Segment(**SOUND, entries=[pb.Entry(file_info=b"\xff")]).SerializeToString(),
        pb.Segment(**SOUND, entries=[pb.Entry(file_info=file("a").raw, source=b"short")]).SerializeToString(),
        pb.Segment(**SOUND, entries=[pb.Entry(file_info=plaintext("a.txt"))]).SerializeToString(),
    ],
    ids=["not protobuf", "writer", "cursor", "no file info", "source", "plaintext"],
)
def test_sound_bytes_that_say_nonsense(message: bytes) -> None:
    with pytest.raises(DataError, match=KEY):
        decode_segment(sealed(message), KEY)


FILE, OBJECT = file("a").raw, {"content_hash": "0" * 32, "object_size": 2000, "part_crc32c": [7]}
LARGE = file("a", sizes=(5000, 5000)).raw


def changed(info: bytes, change: Callable[[bep.FileInfo], object]) -> bytes:
    message = bep.FileInfo.FromString(info)
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize(
    "segment",
    [
        {"append_id": b""},
        {"append_id": bytes(17)},
        {"writer": bytes(33)},
        {"time_ms": -1},
        {"time_ms": MAX_TIME_MS + 1},
        {"first_sequence": 0},
        {"first_sequence": 2**63},
        {"cursors": [pb.PeerCursor(device_id=bytes(32), sequence=2**63)]},
    ],
    ids=str,
)
def test_fields_of_a_segment_out_of_range(segment: dict[str, Any]) -> None:
    decode_segment(sealed(pb.Segment(**SOUND).SerializeToString()), KEY)
    with pytest.raises(DataError, match=KEY):
        decode_segment(sealed(pb.Segment(**{**SOUND, **segment}).SerializeToString()), KEY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"content_hash": "../" * 10 + "00"},
        {"content_hash": "0" * 31},
        {"content_hash": "A" * 32},
        {"content_hash": "0" * 32 + "/"},
        {"content_hash": ""},
        {"object_size": 1064},
        {"object_size": 0},
        {"object_size": 2**63},
        {"object_size": 2**64 - 1},
        {"part_crc32c": []},
        {"part_crc32c": [1, 2]},
        {"part_size": 2000, "part_crc32c": [1, 2]},
        {"part_size": 1000, "part_crc32c": [1]},
        {"part_size": 2**64 - 1},
        {"part_size": 1, "part_crc32c": [1] * 1999},
        {"file_info": directory("a").raw},
        {"file_info": deleted("a").raw},
        {"file_info": LARGE},
        {"file_info": changed(FILE, lambda info: setattr(info, "size", -1))},
        {"file_info": changed(FILE, lambda info: setattr(info, "type", 4))},
        {"file_info": changed(FILE, lambda info: setattr(info, "name", "../a"))},
        {"file_info": changed(FILE, lambda info: setattr(info, "name", ""))},
        {"file_info": changed(FILE, lambda info: setattr(info.blocks[0], "offset", -1))},
        {"file_info": changed(FILE, lambda info: setattr(info.blocks[0], "offset", 1))},
        {"file_info": changed(FILE, lambda info: setattr(info.blocks[0], "size", 0))},
        {"file_info": changed(FILE, lambda info: setattr(info, "size", 1063))},
    ],
    ids=str,
)
def test_fields_of_an_entry_out_of_range(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"file_info": FILE, **OBJECT}
    decode_segment(sealed(pb.Segment(**SOUND, entries=[pb.Entry(**good)]).SerializeToString()), KEY)
    bad = pb.Segment(**SOUND, entries=[pb.Entry(**good), pb.Entry(**{**good, **wrong})])
    with pytest.raises(DataError, match=KEY):
        decode_segment(sealed(bad.SerializeToString()), KEY)


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.ClearField("blocks"),
        lambda info: setattr(info.blocks[0], "size", 5),
        lambda info: setattr(info.blocks[0], "hash", b"a token of another length"),
        lambda info: setattr(info, "name", "another form of encrypted names"),
        lambda info: setattr(info, "encrypted", bytes(17 << 20)),
    ],
    ids=["no blocks", "block size", "token", "name", "long"],
)
def test_limits_for_peers_do_not_apply_to_the_log(change: Callable[[bep.FileInfo], object]) -> None:
    """They may be stricter one day than when the entry was written."""
    info = bep.FileInfo.FromString(file("a").raw)
    change(info)
    raw = info.SerializeToString()
    with pytest.raises((RemoteProtocolError, FileInfoRefused, FolderRefused)):
        parse_file_info(raw)
    message = pb.Segment(**SOUND, entries=[pb.Entry(file_info=raw)])
    (found,) = decode_segment(sealed(message.SerializeToString()), KEY).entries
    assert (found.file_info.raw, found.file_info.message) == (raw, info)
