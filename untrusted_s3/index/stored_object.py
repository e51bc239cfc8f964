"""Objects with file data as they lie in the bucket: blocks, then the trailer (docs/format.md, "Objects")."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import crc32c

from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import DataError, NoSuchKey, ProtocolError
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.store.bucket import Bucket, Buffer
from untrusted_s3.store.multipart import part_ranges, part_size

_LENGTH_SIZE = 4


def crc32c_of(pieces: Sequence[Buffer]) -> int:
    """The CRC-32C of the pieces, one after the other."""
    checksum = 0
    for piece in pieces:
        checksum = crc32c.crc32c(piece, checksum)
    return checksum


def object_part_size(file_info: FileInfo) -> int:
    """The part size of a file's object: whole blocks of the size of its first one; 0 for a single PUT."""
    blocks = file_info.message.blocks
    return part_size(file_info.message.size, blocks[0].size if blocks else 1)


@dataclass(frozen=True, slots=True)
class PreviousObject:
    """The object of the version before, for a file that has changed: which of its bytes are those of the new one.

    A block has not changed where number, offset, size and token are equal; its old ciphertext then serves.
    """

    key: str
    stored: StoredObject
    new_data_size: int
    offsets: tuple[int, ...]
    unchanged: tuple[bool, ...]

    @classmethod
    def of(cls, key: str, before: FileInfo, stored: StoredObject, file_info: FileInfo) -> PreviousObject | None:
        """What the object of `before` under `key` has of `file_info`; None where that is nothing."""
        old, new = before.message.blocks, file_info.message.blocks
        unchanged = [one == other for one, other in zip(old, new, strict=False)]
        unchanged += [False] * (len(new) - len(unchanged))
        if not any(unchanged):
            return None
        return cls(key, stored, file_info.message.size, tuple(block.offset for block in new), tuple(unchanged))

    def has_block(self, number: int) -> bool:
        """Whether it has this block of the new version."""
        return self.unchanged[number]

    def has_range(self, start: int, end: int) -> bool:
        """Whether it has all bytes from `start` to `end` of the new object: these are blocks that have not changed, and
        nothing of the trailer."""
        first, last = bisect.bisect_right(self.offsets, start) - 1, bisect.bisect_left(self.offsets, end)
        return end <= self.new_data_size and all(self.unchanged[first:last])

    def checksum(self, start: int, end: int) -> int | None:
        """The CRC-32C of the range where it was a part of this object too."""
        number, rest = divmod(start, self.stored.part_size) if self.stored.part_size else (0, start)
        ranges = part_ranges(self.stored.size, self.stored.part_size)
        return self.stored.part_crc32c[number] if not rest and ranges[number] == (start, end) else None


async def read_stored_object(bucket: Bucket, key: str, file_info: FileInfo) -> StoredObject:
    """Reads an object that is there already and holds the content of `file_info`, perhaps with an older trailer.

    Raises NoSuchKey, or DataError where it is something else.
    """
    object_size = await bucket.size(key)
    if object_size is None:
        raise NoSuchKey(f"{key}: no such object")
    await _check_trailer(bucket, key, object_size, file_info)
    size = object_part_size(file_info)
    checksums = [
        crc32c_of([await bucket.get(key, start, end - start)]) for start, end in part_ranges(object_size, size)
    ]
    return StoredObject(key.rpartition("/")[2], object_size, size, tuple(checksums))


async def _check_trailer(bucket: Bucket, key: str, object_size: int, file_info: FileInfo) -> None:
    data_size = file_info.message.size
    trailer_size = object_size - data_size
    problem = DataError(f"{key} does not hold the content that its key names; run repair")
    if trailer_size <= _LENGTH_SIZE:
        raise problem
    trailer = await bucket.get(key, data_size, trailer_size)
    if int.from_bytes(trailer[-_LENGTH_SIZE:], "big") != trailer_size - _LENGTH_SIZE:
        raise problem
    try:
        stored = parse_file_info(trailer[:-_LENGTH_SIZE])
    except ProtocolError as error:
        raise problem from error
    if stored.name != file_info.name or stored.content_hash() != file_info.content_hash():
        raise problem
