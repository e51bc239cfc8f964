"""What a peer announces, and what of it is still to be handled (index/pending.py)."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo

# What an entry takes in the table and both indexes beside its file info and its version. Pages are not full.
_ROW_SIZE = 512


@dataclass(frozen=True, slots=True)
class Announced:
    """A file info that a peer announces, and the hash of its content, or None where it has no data."""

    file_info: FileInfo
    content_hash: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """An announced entry that is to be handled. `PendingIndex.file_info` loads its file info.

    Attributes:
        device_id: The announcing device.
        name_hash: The hash of the encrypted name.
        sequence: The announcing device's sequence number.
        version: The serialized version vector.
        content_hash: The hash of the content, or None where the entry has no data.
        size: The bytes of the data.
        file_info_size: The bytes of the serialized file info.
    """

    device_id: DeviceID
    name_hash: bytes
    sequence: int
    version: bytes
    content_hash: str | None
    size: int
    file_info_size: int

    @property
    def has_data(self) -> bool:
        """Whether the entry has blocks to pull."""
        return self.content_hash is not None

    @property
    def vector(self) -> pb.Vector:
        """The version vector."""
        return pb.Vector.FromString(self.version)


def held_size(file_info_size: int, version_size: int = 0) -> int:
    """Return about how many bytes on the disk an entry takes."""
    return file_info_size + file_info_size // 8 + version_size + _ROW_SIZE
