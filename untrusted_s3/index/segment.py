"""Log segments: immutable objects, each of which extends a folder's log by some entries (docs/format.md, "Segments").

magic (8 bytes, "US3SEG" 0x00 0x02)  Segment (protobuf, segment.proto)  CRC-32C of both (4 bytes, big endian)

Segments of format version 1 have another magic, no renewals, no confirmations, and entries without sources and claims.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import crc32c
from google.protobuf.message import DecodeError

from untrusted_s3.bep.bep_pb2 import Vector
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, SegmentDamaged, UnknownFormat
from untrusted_s3.index import segment_pb2 as pb
from untrusted_s3.index.entry import (
    MAX_SEQUENCE,
    MAX_TIME_MS,
    Confirmation,
    Entry,
    PeerCursor,
    Removal,
    Renewal,
    is_clean_path,
)
from untrusted_s3.index.segment_entries import encode_confirmation, encode_entry, read_confirmation, read_message
from untrusted_s3.store.layout import NAME_HASH_SIZE, is_object_name, name_key

MAGIC = b"US3SEG\x00\x02"
MAGIC_1 = b"US3SEG\x00\x01"
APPEND_ID_SIZE: Final = 16
MAX_INDEX_ID: Final = 2**63 - 1  # of a folder, so that SQLite can keep it


@dataclass(frozen=True, slots=True)
class Segment:
    """One extension of the log.

    Attributes:
        writer: The device ID of the gateway that wrote it.
        append_id: 16 random bytes, new for every attempt to append.
        time_ms: The writer's clock, in milliseconds since 1970 UTC.
        first_sequence: The sequence number of the first entry; the others follow without gaps.
        entries: The changes.
        cursors: How far peers' indexes are reflected in the log, once the entries are.
        renewal: What is taken back before the entries are applied, or None.
        confirmations: Which devices announce exactly what the folder has, once the entries are applied.
        previous: `short_append_id` of the segment before, as its writer knew it; 0 where it is not known. A reader that
            has applied another one is in another history.
    """

    writer: DeviceID
    append_id: bytes
    time_ms: int
    first_sequence: int
    entries: tuple[Entry, ...]
    cursors: tuple[PeerCursor, ...]
    renewal: Renewal | None = None
    previous: int = 0
    confirmations: tuple[Confirmation, ...] = ()

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last entry; one below `first_sequence` where there are no entries."""
        return self.first_sequence + len(self.entries) - 1


# An object without bytes. SeaweedFS leaves one where a connection ends between the head and the body of a PUT. No
# gateway writes the position again, so every reader sees the same and passes over it.
EMPTY_SEGMENT = Segment(DeviceID(bytes(32)), b"", 0, 0, (), ())


def encode_segment(segment: Segment) -> bytes:
    """Encode a segment as the bytes of its object, in the present format version."""
    message = pb.Segment(
        writer=segment.writer.raw,
        append_id=segment.append_id,
        time_ms=segment.time_ms,
        first_sequence=segment.first_sequence,
        entries=map(encode_entry, segment.entries),
        cursors=[
            pb.PeerCursor(device_id=cursor.device_id.raw, index_id=cursor.index_id, sequence=cursor.sequence)
            for cursor in segment.cursors
        ],
        renewal=_encode_renewal(segment.renewal) if segment.renewal else None,
        previous=segment.previous,
        confirmations=map(encode_confirmation, segment.confirmations),
    )
    body = MAGIC + message.SerializeToString()
    return body + struct.pack(">I", crc32c.crc32c(body))


def decode_segment(data: bytes, key: str) -> Segment:
    """Decode the bytes of a segment's object. The errors name the object's `key`.

    Raises SegmentDamaged, or UnknownFormat for what a newer program may have written.
    """
    if not data:
        return EMPTY_SEGMENT
    magic = data[: len(MAGIC)]
    if magic not in (MAGIC, MAGIC_1):
        text = f"{key} is not a log segment of a format version that this program reads"
        raise UnknownFormat(text) if _may_be_newer(data) else SegmentDamaged(text)
    if not _has_checksum(data):
        raise SegmentDamaged(f"{key} is damaged: its checksum does not match")
    try:
        message = pb.Segment.FromString(data[len(MAGIC) : -4])
        if magic == MAGIC_1:
            _check_version_1(message)
        return _read_segment(message)
    except (DecodeError, ValueError) as error:
        raise SegmentDamaged(f"{key} cannot be read: {error}") from error


def too_large(head: bytes, key: str) -> DataError:
    """Return what is wrong with an object that has too many bytes for a segment and begins with `head`."""
    text = f"{key} is larger than any log segment"
    known = head[: len(MAGIC)] in (MAGIC, MAGIC_1)
    return UnknownFormat(text) if not known and _may_be_newer(head) else SegmentDamaged(text)


def _may_be_newer(data: bytes) -> bool:
    """Return whether a newer program may have written what has an unknown magic.

    Not if only the byte with the version was altered: then the checksum matches with the right one.
    """
    version, rest = data[len(MAGIC) - 1 : len(MAGIC)], data[len(MAGIC) :]
    if data[: len(MAGIC) - 1] != MAGIC[:-1] or not version:
        return False
    return not any(_has_checksum(magic + rest) for magic in (MAGIC, MAGIC_1))


def _has_checksum(data: bytes) -> bool:
    return len(data) >= len(MAGIC) + 4 and crc32c.crc32c(data[:-4]) == struct.unpack(">I", data[-4:])[0]


def _read_segment(message: pb.Segment) -> Segment:
    if len(message.append_id) != APPEND_ID_SIZE:
        raise ValueError(f"an append id has {APPEND_ID_SIZE} bytes, not {len(message.append_id)}")
    if not 0 <= message.time_ms <= MAX_TIME_MS:
        raise ValueError(f"its time is out of range: {message.time_ms} ms")
    if message.previous >= 2**63:
        raise ValueError(f"the append id of the segment before is out of range: {message.previous}")
    if not 1 <= message.first_sequence <= MAX_SEQUENCE - len(message.entries):
        raise ValueError(f"its first sequence number is out of range: {message.first_sequence}")
    return Segment(
        writer=DeviceID(message.writer),
        append_id=message.append_id,
        time_ms=message.time_ms,
        first_sequence=message.first_sequence,
        entries=tuple(map(read_message, message.entries)),
        cursors=tuple(map(_read_cursor, message.cursors)),
        renewal=_read_renewal(message.renewal) if message.HasField("renewal") else None,
        previous=message.previous,
        confirmations=tuple(map(read_confirmation, message.confirmations)),
    )


def _check_version_1(message: pb.Segment) -> None:
    """Raises ValueError for what readers of format version 1 would pass over."""
    later = any(entry.source or entry.HasField("claims") for entry in message.entries)
    if later or message.HasField("renewal") or message.previous or message.confirmations:
        raise ValueError("it has fields of a later format version")


def _encode_renewal(renewal: Renewal) -> pb.Renewal:
    return pb.Renewal(
        index_id=renewal.index_id,
        removals=[
            pb.Removal(
                name_hash=removal.name_hash,
                missing_object=removal.missing_object,
                name=removal.name,
                version=removal.version,
            )
            for removal in renewal.removals
        ],
    )


def _read_renewal(message: pb.Renewal) -> Renewal:
    if not 1 <= message.index_id <= MAX_INDEX_ID:
        raise ValueError(f"an index id of the folder is out of range: {message.index_id}")
    removals = tuple(map(_read_removal, message.removals))
    if len({removal.name_hash for removal in removals}) != len(removals):
        raise ValueError("it removes a name twice")
    return Renewal(message.index_id, removals)


def _read_removal(removal: pb.Removal) -> Removal:
    if len(removal.name_hash) != NAME_HASH_SIZE:
        raise ValueError(f"the hash of a name has {NAME_HASH_SIZE} bytes, not {len(removal.name_hash)}")
    if removal.missing_object and not is_object_name(removal.missing_object):
        raise ValueError(f"{removal.missing_object[:100]!r} is no object name")
    if removal.name or removal.version:
        _check_lost(removal)
    return Removal(removal.name_hash, removal.missing_object, removal.name, removal.version)


def _check_lost(removal: pb.Removal) -> None:
    """Check the name and the version of an entry that the log before does not have. Raises ValueError."""
    if not removal.missing_object or not is_clean_path(removal.name) or name_key(removal.name) != removal.name_hash:
        raise ValueError(f"{removal.name[:100]!r} is not the name of a file that is missing")
    Vector.FromString(removal.version)


def _read_cursor(cursor: pb.PeerCursor) -> PeerCursor:
    if cursor.sequence > MAX_SEQUENCE:
        raise ValueError(f"a cursor's sequence number is out of range: {cursor.sequence}")
    return PeerCursor(DeviceID(cursor.device_id), cursor.index_id, cursor.sequence)
