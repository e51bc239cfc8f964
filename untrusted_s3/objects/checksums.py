"""CRC-32C of objects and of their parts, as the log states them (docs/format.md, "Segments")."""

from __future__ import annotations

from collections.abc import Sequence

import crc32c

from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.store.bucket import Bucket, Buffer


def crc32c_of(pieces: Sequence[Buffer]) -> int:
    """Return the CRC-32C of the pieces, joined in order."""
    checksum = 0
    for piece in pieces:
        checksum = crc32c.crc32c(piece, checksum)
    return checksum


async def crc32c_of_range(bucket: Bucket, key: str, start: int, end: int, read_size: int) -> int:
    """Return the CRC-32C of a range of an object; `read_size` bytes are in memory at once. Raises StoreError."""
    checksum = 0
    for position in range(start, end, read_size):
        size = min(read_size, end - position)
        checksum = crc32c.crc32c(await bucket.get(key, position, size), checksum)
    return checksum


class PartChecksums:
    """Compares the bytes of an object, given in order, with the CRC-32C of each part in the log."""

    def __init__(self, stored: StoredObject) -> None:
        """Start at the object's beginning. Raises DataError unless the log states one checksum for each part."""
        self._expected = stored.part_crc32c
        self._part_size = stored.part_size or stored.size
        self._left = stored.size
        self._left_in_part = min(self._part_size, self._left)
        self._number = 0
        self._checksum = 0
        parts = -(-stored.size // self._part_size)
        if parts != len(self._expected):
            raise DataError(f"the log has {len(self._expected)} checksums for the {parts} parts of its object")

    def add(self, data: Buffer) -> None:
        """Take the next bytes. Raises DataError at the end of a part that differs."""
        view = memoryview(data)
        while view:
            piece = view[: self._left_in_part]
            view = view[len(piece) :]
            self._checksum = crc32c.crc32c(piece, self._checksum)
            self._left_in_part -= len(piece)
            self._left -= len(piece)
            if self._left_in_part == 0:
                self._end_part()

    def _end_part(self) -> None:
        if self._checksum != self._expected[self._number]:
            raise DataError(f"part {self._number + 1} of its object differs from the checksum in the log")
        self._number += 1
        self._checksum = 0
        self._left_in_part = min(self._part_size, self._left)
