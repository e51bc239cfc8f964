"""Entries of a folder's log and state."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The object with a file's data.

    Attributes:
        content_hash: The object's name: the last segment of its key.
        size: The bytes of the object, trailer included.
        part_size: The bytes of each part but the last; 0 for an object of a single PUT.
        part_crc32c: The CRC-32C of each part, in order.
    """

    content_hash: str
    size: int
    part_size: int
    part_crc32c: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a folder.

    Attributes:
        file_info: The file info as received.
        stored: The object with its data, or None where it has no data.
    """

    file_info: FileInfo
    stored: StoredObject | None


@dataclass(frozen=True, slots=True)
class PeerCursor:
    """How far a device's index is reflected in the log: all up to `sequence`."""

    device_id: DeviceID
    index_id: int
    sequence: int


def stored_file_info(raw: bytes) -> FileInfo:
    """Parse a file info of a log or a state, which was checked when a peer sent it.

    The limits for messages of peers do not apply here: they may change, and the log must stay readable. Raises
    google.protobuf's DecodeError where it cannot be parsed, and ValueError where it is not encrypted.
    """
    message = pb.FileInfo.FromString(raw)
    if not message.encrypted:
        raise ValueError(f"the file info of {message.name!r} is not encrypted")
    return FileInfo(raw, message)
