"""The reader of log segments."""

from __future__ import annotations

import functools
import struct
import zlib
from dataclasses import replace

import crc32c

from tests.file_infos import deleted, device, directory, entry, file
from tests.fuzz.targets import short
from tests.simulated import fast_directory
from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import (
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
from untrusted_s3.index.segment import EMPTY_SEGMENT, MAGIC, MAGIC_1, Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

_KEY = "folders/f/log/00000000000000000001"
_APPLIED_SHARE = 256
_VERSION_1_SHARE = 16
_ENTRIES = (entry(file("a")), entry(directory("b")), entry(deleted("c")), entry(file("d", sizes=(2000, 3000))))
LARGE = Entry(file("f", sizes=(9000, 9000)), StoredObject("c" * 32 + "-1", 20_000, 8_000, (1, 2, 3)))
CURSORS = (PeerCursor(device(2), 2**64 - 1, 5), PeerCursor(device(3), 1, 2))
SOURCED = tuple(replace(found, source=device(number)) for number, found in enumerate((*_ENTRIES, _ENTRIES[0])))
REMOVALS = (Removal(name_key(file("f").name), "c" * 32 + "-1"), Removal(name_key(file("b").name)))
_DISSENTS = (
    Dissent(replace(entry(file("a", 3)), source=device(3)), (device(3), device(5))),
    Dissent(entry(deleted("a", 2)), (device(6),)),
)
_DECLINED = (DeclinedVersion(device(3), 0, 1_700_000_000_000), DeclinedVersion(device(2), 2, 5, 3, shown_again=True))
CLAIMED = tuple(
    replace(entry(file("a", 4)), source=device(2), claims=EntryClaims((device(2), device(4)), dissents, declined))
    for dissents, declined in (((), ()), (_DISSENTS[:1], _DECLINED[:1]), (_DISSENTS, _DECLINED))
)
CONFIRMATIONS = (Confirmation.of(device(3), [1, 2, 5]), Confirmation.of(device(7), [1]))
_LOST = Removal(name_key(file("g").name), "d" * 32, file("g").name, file("g").message.version.SerializeToString())


def segments(data: bytes) -> str:
    """Read the message of a segment. One in 256 of those that are taken goes into a state and is read back.

    One in 16 is read as one of format version 1.
    """
    checksum = zlib.crc32(data)
    old = checksum % _VERSION_1_SHARE == 1
    body = (MAGIC_1 if old else MAGIC) + data
    try:
        segment = decode_segment(body + struct.pack(">I", crc32c.crc32c(body)), _KEY)
    except DataError as error:
        assert _KEY in str(error)
        return short(str(error).partition(": ")[2])
    assert segment is not EMPTY_SEGMENT
    assert decode_segment(encode_segment(segment), _KEY) == segment
    if checksum % _APPLIED_SHARE == 0:
        _apply(segment)
    entries, cursors = min(len(segment.entries), 4), min(len(segment.cursors), 4)
    sources, previous = any(one.source for one in segment.entries), bool(segment.previous)
    return f"taken {old} {entries} {cursors} {sources} {previous}{_shape(segment.renewal)}{_claims(segment)}"


def _claims(segment: Segment) -> str:
    dissents = sum(len(one.dissents) for one in segment.entries)
    declined = sum(len(one.claims.declined) for one in segment.entries if one.claims is not None)
    counts = [min(count, 4) for count in (dissents, declined, len(segment.confirmations))]
    return f" {counts}" if any(counts) else ""


def _shape(renewal: Renewal | None) -> str:
    if renewal is None:
        return ""
    removals = renewal.removals
    missing, named = (
        sum(map(bool, found)) for found in ([r.missing_object for r in removals], [r.name for r in removals])
    )
    return f" renewal {min(len(removals), 4)} {min(missing, 3)} {min(named, 3)}"


def _apply(segment: Segment) -> None:
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        try:
            state.apply(1, segment)
        except DataError:
            return
        else:
            newest = {found.file_info.name: replace(found, claims=None) for found in segment.entries}
            last = {one.file_info.name: one for one in segment.entries}
            # Without claims, an entry leaves those of one before it, except beside a renewal.
            is_whole = segment.renewal is not None or len(last) == len(segment.entries)
            assert all(state.has(found) for found in last.values() if is_whole or found.claims is not None)
            assert state.disputed_count == len(list(state.disputed()))
            assert all(state.entry(name) == found for name, found in newest.items())
            assert state.totals.bytes >= 0
            assert state.index_id == (segment.renewal.index_id if segment.renewal else 0)
        finally:
            state.close()


@functools.cache
def segment_seeds() -> list[bytes]:
    """Return the messages of sound segments."""
    kinds = [(_ENTRIES[:1], ()), (_ENTRIES, CURSORS), ((), CURSORS[:1]), ((LARGE, _ENTRIES[0]), ())]
    made = [Segment(device(1), bytes(16), 1_700_000_000_000, 1, entries, cursors) for entries, cursors in kinds]
    made += [
        Segment(device(1), bytes(16), 5, 1, entries, (), Renewal(index_id, removals), previous)
        for entries, index_id, removals, previous in (
            ((), 1, (), 2**63 - 1),
            (SOURCED, 2**63 - 1, REMOVALS, 0),
            ((), 5, REMOVALS[:1], 1),
            (SOURCED[1:3], 6, (_LOST, *REMOVALS), 7),
            ((), 7, (_LOST,), 0),
        )
    ]
    made.append(Segment(device(1), bytes(range(16)), 6, 2**62, SOURCED[:2], CURSORS, None, 2**62))
    made += [
        Segment(device(1), bytes(16), 5, 1, (claimed, *SOURCED[1:3]), CURSORS[:1], None, 0, confirmations)
        for claimed, confirmations in zip(CLAIMED, ((), CONFIRMATIONS[:1], CONFIRMATIONS), strict=True)
    ]
    return [encode_segment(segment)[len(MAGIC) : -4] for segment in made]
