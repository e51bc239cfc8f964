"""Entries of a folder's log and state."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.store.layout import is_object_name, name_key

# 10,000 parts of 5 GiB, the most that S3 allows, are less.
MAX_OBJECT_SIZE: Final = 2**56
MAX_SEQUENCE: Final = 2**63 - 1
MAX_TIME_MS: Final = 253_402_300_799_999  # the end of the year 9999
# What a name is: a file, a directory or symlink, or deleted.
KIND_FILE, KIND_DIRECTORY, KIND_DELETED = range(3)
_UNCLEAN = frozenset(("", ".", ".."))


def kind_of(message: pb.FileInfo) -> int:
    """Return what a file info says that its name is."""
    if message.deleted:
        return KIND_DELETED
    return KIND_FILE if message.type == pb.FILE else KIND_DIRECTORY


NAMED_ONLY: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object with a file's data.

    Attributes:
        object_name: The last segment of its key.
        size: The bytes of the object, trailer included.
        part_size: The bytes of each part but the last; 0 for an object of a single PUT.
        part_crc32c: The CRC-32C of each part, in order.
        seen: When a gateway that wants to name it knew that it was there, by the clock that signs its requests;
            NAMED_ONLY if it is there as long as the folder names it. None where nobody asks.
    """

    object_name: str
    size: int
    part_size: int
    part_crc32c: tuple[int, ...]
    seen: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a folder.

    Attributes:
        file_info: The file info as received.
        stored: The object with its data, or None where it has no data.
        source: The device whose data this is: the one that announced it, or, if blocks came from an untrusted device,
            that one. None where it is not known.
        claims: Which devices claim which version of the name. None: the source claims this one, and there is no other.
    """

    file_info: FileInfo
    stored: StoredObject | None
    source: DeviceID | None = None
    claims: EntryClaims | None = None

    @property
    def dissents(self) -> tuple[Dissent, ...]:
        """The other versions of the name."""
        return self.claims.dissents if self.claims is not None else ()

    @property
    def versions(self) -> tuple[Entry, ...]:
        """The entry itself and the entries of its dissents."""
        return self, *(dissent.entry for dissent in self.dissents)

    @property
    def raw_size(self) -> int:
        """The bytes of its file infos, which are about those that it takes in a segment."""
        return sum(len(version.file_info.raw) for version in self.versions)


@dataclass(frozen=True, slots=True)
class Dissent:
    """A version of a name that is claimed and is not the current one.

    Attributes:
        entry: The version: an entry of the same name, without claims.
        claimed_by: The devices that claim it, at least one.
    """

    entry: Entry
    claimed_by: tuple[DeviceID, ...]


@dataclass(frozen=True, slots=True)
class DeclinedVersion:
    """A device was shown a version and stayed with its own (`claims.Declined`).

    Attributes:
        device_id: The device.
        version: 0 for the entry's own version, n for its n-th dissent.
        time_ms: When that was noted, in milliseconds since 1970 UTC.
        times: How often.
        shown_again: Whether the device is shown the version once more.
    """

    device_id: DeviceID
    version: int
    time_ms: int
    times: int = 1
    shown_again: bool = False


@dataclass(frozen=True, slots=True)
class EntryClaims:
    """The claims to the name of an entry, as the log has them.

    Attributes:
        claimed_by: The devices that claim the entry's own version.
        dissents: The other versions, the oldest dissent first. No device claims two versions.
        declined: What devices have declined, each version once.
    """

    claimed_by: tuple[DeviceID, ...] = ()
    dissents: tuple[Dissent, ...] = ()
    declined: tuple[DeclinedVersion, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A device announces exactly what the folder has.

    Attributes:
        device_id: The device.
        sequences: Sequence numbers of the folder, in rising order. Those that are no longer in use are passed over.
    """

    device_id: DeviceID
    sequences: tuple[range, ...]

    @classmethod
    def of(cls, device_id: DeviceID, sequences: Iterable[int]) -> Confirmation:
        """Return the confirmation of some sequence numbers, at least one, in any order."""
        ranges: list[range] = []
        for sequence in sorted(set(sequences)):
            if ranges and ranges[-1].stop == sequence:
                ranges[-1] = range(ranges[-1].start, sequence + 1)
            else:
                ranges.append(range(sequence, sequence + 1))
        return cls(device_id, tuple(ranges))

    @classmethod
    def merged(cls, confirmations: Iterable[Confirmation]) -> tuple[Confirmation, ...]:
        """Return one confirmation a device instead of several."""
        sequences: dict[DeviceID, list[range]] = {}
        for one in confirmations:
            sequences.setdefault(one.device_id, []).extend(one.sequences)
        return tuple(cls.of(device_id, itertools.chain(*some)) for device_id, some in sequences.items())


@dataclass(frozen=True, slots=True)
class NamedObject:
    """An object that an entry names.

    Attributes:
        name_hash: The hash of the entry's encrypted name.
        object_name: The name of the object.
        size: The bytes of the object.
    """

    name_hash: bytes
    object_name: str
    size: int

    @classmethod
    def of(cls, entry: Entry) -> NamedObject | None:
        """Return the object of an entry, or None if the entry has no data."""
        if entry.stored is None:
            return None
        return cls(name_key(entry.file_info.name), entry.stored.object_name, entry.stored.size)


@dataclass(frozen=True, slots=True)
class PeerCursor:
    """How far a device's index is reflected in the log: all up to `sequence`."""

    device_id: DeviceID
    index_id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A name that the folder no longer holds.

    Attributes:
        name_hash: The hash of the encrypted name, 16 bytes (`store.layout.name_key`).
        missing_object: The name of the object whose loss or damage is the reason; empty for another reason. Then the
            file is listed as missing until an entry of its name comes, and nobody uses the object again.
        name: The encrypted name, if the log before does not have the entry that names the object. Else empty.
        version: The serialized version of that entry. The file is listed as missing until an entry comes that is not
            older. Empty where `name` is.
    """

    name_hash: bytes
    missing_object: str = ""
    name: str = ""
    version: bytes = b""


@dataclass(frozen=True, slots=True)
class Renewal:
    """The beginning of another index of the folder.

    Attributes:
        index_id: The id of the index that gateways announce from here on.
        removals: Names that the folder no longer holds.
    """

    index_id: int
    removals: tuple[Removal, ...] = ()


def read_entry(
    raw: bytes,
    object_name: str,
    object_size: int,
    part_size: int,
    part_crc32c: Sequence[int],
    source: bytes | None = None,
) -> Entry:
    """Parse and check the fields of an entry of a log or a state. `object_name` is empty where there is no object.

    Anybody who can write to the bucket can write entries. The limits for messages of peers do not apply here: they may
    change, and the log must stay readable. Raises ValueError for an entry that no gateway writes.
    """
    file_info = read_file_info(raw)
    device_id = DeviceID(source) if source else None
    if not object_name:
        if object_size or part_size or part_crc32c:
            raise ValueError(f"the entry of {file_info.name!r} names no object, but its size or checksums")
        return Entry(file_info, None, device_id)
    if not file_info.has_data:
        raise ValueError(f"the entry of {file_info.name!r} has an object, and no data")
    _check_object(object_name, object_size, part_size, len(part_crc32c), file_info.message.size)
    return Entry(file_info, StoredObject(object_name, object_size, part_size, tuple(part_crc32c)), device_id)


# What `read_row` takes: of the current version of a sequence number, and of a dissent.
ENTRY_COLUMNS = """
SELECT file_info, content_hash, object_size, part_size, part_crc32c, device_id
FROM files LEFT JOIN devices ON number = source WHERE sequence = ?
"""
DISSENT_COLUMNS = """
SELECT file_info, content_hash, object_size, part_size, part_crc32c, device_id
FROM dissents LEFT JOIN devices ON devices.number = source WHERE sequence = ? AND dissents.number = ?
"""


def read_row(row: Sequence[Any]) -> Entry:
    """Parse and check an entry of a state. Raises ValueError or TypeError."""
    raw, object_name, object_size, part_size, crcs, source = row
    return read_entry(raw, object_name or "", object_size or 0, part_size or 0, read_checksums(crcs), source)


def read_checksums(crcs: bytes | None) -> tuple[int, ...]:
    """Return the checksums of an object's parts from the value of a state. Raises ValueError or TypeError."""
    try:
        return struct.unpack(f">{len(crcs or b'') // 4}I", crcs or b"")
    except struct.error as error:
        raise ValueError("checksums of no whole number") from error


def read_file_info(raw: bytes) -> FileInfo:
    """Parse and check the file info of an entry. Raises ValueError."""
    try:
        message = pb.FileInfo.FromString(raw)
    except DecodeError as error:
        raise ValueError(f"a file info cannot be parsed: {error}") from error
    _check_file_info(message)
    file_info = FileInfo(raw, message)
    if file_info.has_data:
        check_blocks(message)
    return file_info


def _check_file_info(message: pb.FileInfo) -> None:
    """Check all of an entry's file info but its blocks. Raises ValueError."""
    if not message.encrypted:
        raise ValueError(f"the file info of {message.name[:100]!r} is not encrypted")
    if not is_clean_path(message.name):
        raise ValueError(f"{message.name[:100]!r} is not a clean relative path")
    if message.type not in (pb.FILE, pb.DIRECTORY):
        raise ValueError(f"{message.name!r} has type {message.type}, which no encrypted entry has")
    if message.size < 0:
        raise ValueError(f"{message.name!r} has a size of {message.size}")


def is_clean_path(name: str) -> bool:
    """Return whether a name is a relative path without "", "." and ".."."""
    return "\0" not in name and _UNCLEAN.isdisjoint(name.split("/"))


def _check_object(object_name: str, object_size: int, part_size: int, parts: int, data_size: int) -> None:
    """Check what an entry says of an object with `data_size` bytes of data. Raises ValueError."""
    if not is_object_name(object_name):
        raise ValueError(f"{object_name[:100]!r} is no object name")
    if not data_size < object_size <= MAX_OBJECT_SIZE:
        raise ValueError(f"an object of {object_size} bytes cannot hold {data_size} bytes of data")
    if not 0 <= part_size <= MAX_OBJECT_SIZE:
        raise ValueError(f"no object has parts of {part_size} bytes")
    due = -(-object_size // part_size) if part_size else 1
    if parts != due:
        raise ValueError(f"an object of {object_size} bytes in parts of {part_size} has {due} of them, not {parts}")


def check_blocks(message: pb.FileInfo) -> None:
    """Check that all blocks of a file are within its data. Raises ValueError."""
    for block in message.blocks:
        if block.offset < 0 or block.size <= 0 or block.offset + block.size > message.size:
            raise ValueError(f"{message.name!r}: a block of {block.size} bytes at {block.offset} is not in the data")
