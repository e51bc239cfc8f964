"""Segments with a right checksum and any content: each is read as what it is, or refused and named.

UNTRUSTED_S3_EXAMPLES sets the number of examples, for a long run by hand.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import replace
from typing import Any

import crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, entry, file
from tests.fuzz.inputs import mutated
from tests.simulated import fast_directory
from untrusted_s3.bep import bep_pb2 as bep
from untrusted_s3.errors import DataError
from untrusted_s3.index import segment_pb2 as pb
from untrusted_s3.index.entry import Confirmation, DeclinedVersion, Dissent, EntryClaims, PeerCursor, Removal, Renewal
from untrusted_s3.index.segment import EMPTY_SEGMENT, MAGIC, Segment, decode_segment, encode_segment
from untrusted_s3.index.state import MAX_BYTES, FolderState

EXAMPLES = int(os.environ.get("UNTRUSTED_S3_EXAMPLES", "150"))
KEY = "folders/f/log/00000000000000000001"
ENTRIES = (entry(file("a")), entry(directory("b")), entry(deleted("c")), entry(file("d", sizes=(2000, 3000))))
CLAIMED = replace(
    entry(file("a", 2)),
    claims=EntryClaims(
        (device(2),),
        (Dissent(ENTRIES[0], (device(3),)), Dissent(entry(deleted("a", 3)), (device(4), device(5)))),
        (DeclinedVersion(device(3), 0, 1_700_000_000_000, 2), DeclinedVersion(device(2), 1, 5, shown_again=True)),
    ),
)
SOUND = [
    encode_segment(
        Segment(device(1), bytes(16), 5, 1, (CLAIMED,), (), None, 0, (Confirmation.of(device(3), [1, 2, 7]),))
    ),
    encode_segment(Segment(device(1), bytes(16), 5, 1, (CLAIMED, *ENTRIES), (PeerCursor(device(3), 1, 0),))),
] + [
    encode_segment(Segment(device(1), bytes(16), 1_700_000_000_000, 1, entries, cursors, renewal))
    for entries, cursors, renewal in (
        (ENTRIES[:1], (), None),
        (ENTRIES, (PeerCursor(device(2), 2**64 - 1, 5), PeerCursor(device(3), 1, 2)), None),
        ((), (PeerCursor(device(2), 3, 4),), Renewal(1)),
        ((ENTRIES[0], replace(ENTRIES[0], source=device(2)), entry(file("a", 2))), (), None),
        (ENTRIES[:1], (), Renewal(2**63 - 1, (Removal(bytes(16)), Removal(b"1" * 16, "0" * 32 + "-1")))),
    )
]
SIGNED, UNSIGNED = (
    st.one_of(st.sampled_from(edges), st.integers(min(edges), max(edges)), st.integers(0, 6000))
    for edges in ([0, 1, -1, 2**63 - 1, -(2**63)], [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
)
NAMES = st.sampled_from([found.file_info.name for found in ENTRIES]) | st.sampled_from(["", "..", "a/../b", "/", "\0"])
BLOCKS = st.builds(bep.BlockInfo, offset=SIGNED, size=st.integers(-(2**31), 2**31 - 1), hash=st.binary(max_size=48))
FILE_INFOS = st.builds(
    bep.FileInfo,
    name=NAMES,
    type=st.integers(0, 5),
    size=SIGNED,
    deleted=st.booleans(),
    invalid=st.booleans(),
    encrypted=st.binary(max_size=3),
    version=st.builds(bep.Vector, counters=st.lists(st.builds(bep.Counter, id=UNSIGNED, value=UNSIGNED), max_size=2)),
    blocks=st.lists(BLOCKS, max_size=2),
).map(bep.FileInfo.SerializeToString) | st.sampled_from([found.file_info.raw for found in ENTRIES])
REMOVALS = st.builds(
    pb.Removal,
    name_hash=st.sampled_from([bytes(16), b"1" * 16, bytes(15), b""]),
    missing_object=st.sampled_from(["", "0" * 32, "../" * 11]),
)
DEVICE_IDS = st.sampled_from([device(number).raw for number in range(3)]) | st.sampled_from([b"", bytes(31)])
FIELDS: dict[str, Any] = {
    "file_info": FILE_INFOS,
    "content_hash": st.sampled_from(["", "0" * 32, "0" * 32 + "-1", "../" * 11, "0" * 33, "é" * 32]),
    "object_size": UNSIGNED,
    "part_size": st.just(0) | UNSIGNED,
    "part_crc32c": st.lists(st.integers(0, 2**32 - 1), max_size=3),
    "source": st.sampled_from([b"", bytes(32), bytes(31)]),
}
UINT32 = st.integers(0, 3) | st.integers(0, 2**32 - 1)
CLAIMS = st.builds(
    pb.Claims,
    claimed_by=st.lists(DEVICE_IDS, max_size=2),
    dissents=st.lists(
        st.builds(pb.Dissent, version=st.builds(pb.Entry, **FIELDS), claimed_by=st.lists(DEVICE_IDS, max_size=2)),
        max_size=2,
    ),
    declined=st.lists(
        st.builds(
            pb.Declined, device_id=DEVICE_IDS, version=UINT32, time_ms=SIGNED, times=UINT32, shown_again=st.booleans()
        ),
        max_size=2,
    ),
)
MADE_UP = st.builds(
    pb.Segment,
    writer=st.sampled_from([bytes(32), bytes(31), b""]),
    append_id=st.sampled_from([bytes(16), bytes(15), b""]),
    time_ms=SIGNED,
    first_sequence=st.just(1) | UNSIGNED,
    entries=st.lists(
        st.builds(pb.Entry, **FIELDS, claims=st.none() | CLAIMS),
        max_size=3,
    ),
    confirmations=st.lists(
        st.builds(pb.Confirmation, device_id=DEVICE_IDS, ranges=st.lists(st.just(1) | UNSIGNED, max_size=4)),
        max_size=2,
    ),
    cursors=st.lists(
        st.builds(
            pb.PeerCursor, device_id=st.sampled_from([bytes(32), bytes(5)]), index_id=UNSIGNED, sequence=UNSIGNED
        ),
        max_size=2,
    ),
    renewal=st.none() | st.builds(pb.Renewal, index_id=UNSIGNED, removals=st.lists(REMOVALS, max_size=3)),
).map(pb.Segment.SerializeToString)
MUTATED = mutated(st.sampled_from([body[len(MAGIC) : -4] for body in SOUND]))
RUN: dict[str, Any] = {"deadline": None, "max_examples": EXAMPLES, "suppress_health_check": list(HealthCheck)}


def sealed(message: bytes) -> bytes:
    body = MAGIC + message
    return body + struct.pack(">I", crc32c.crc32c(body))


def check(body: bytes) -> None:
    """Check that a segment is refused, or says the same after each step that a gateway and a reader take with it."""
    try:
        segment = decode_segment(body, KEY)
    except DataError as error:
        assert KEY in str(error)
        return
    if segment is EMPTY_SEGMENT:
        return
    assert decode_segment(encode_segment(segment), KEY) == segment
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        try:
            state.apply(1, segment)
        except DataError:
            sizes = sum(found.file_info.message.size for found in segment.entries)
            assert segment.first_sequence != 1 or sizes > MAX_BYTES
        else:
            newest = {found.file_info.name: replace(found, claims=None) for found in segment.entries}
            last = {found.file_info.name: found for found in segment.entries}
            times = Counter(found.file_info.name for found in segment.entries)
            # An entry without claims leaves those of one before it, except beside a renewal.
            joined = {name for name in last if times[name] > 1 and last[name].claims is None}
            joined = set() if segment.renewal is not None else joined
            disputed = [name for name in last if last[name].dissents or name in joined]
            assert state.disputed_count == len(list(state.disputed())) <= len(disputed)
            assert all(state.has(found) for name, found in last.items() if name not in joined)
            assert all(state.entry(name) == found for name, found in newest.items())
            assert len(list(state.file_infos_after(0, -1))) == len(newest)
            assert state.totals.bytes >= 0
        finally:
            state.close()


@settings(**RUN)
@given(MUTATED)
def test_a_damaged_message(message: bytes) -> None:
    check(sealed(message))


@settings(**RUN)
@given(MADE_UP)
def test_a_made_up_message(message: bytes) -> None:
    check(sealed(message))


@settings(**RUN)
@given(mutated(st.sampled_from(SOUND)))
def test_damaged_bytes(body: bytes) -> None:
    check(body)


def test_sizes_that_add_up_to_more_than_can_be() -> None:
    entries = [
        pb.Entry(file_info=bep.FileInfo(name=name, encrypted=b"x", size=2**62).SerializeToString()) for name in "abc"
    ]
    message = pb.Segment(writer=bytes(32), append_id=bytes(16), first_sequence=1, entries=entries)
    segment = decode_segment(sealed(message.SerializeToString()), KEY)
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        with pytest.raises(DataError, match="bytes"):
            state.apply(1, segment)
        assert state.position == 0
        state.close()
