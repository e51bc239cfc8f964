"""Reads objects, and compares their bytes with the checksums in the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from untrusted_s3.errors import AnswerTooLong, AnswerTooShort, NoSuchKey, RequestRefused
from untrusted_s3.index.entry import NamedObject, StoredObject
from untrusted_s3.objects.checksums import crc32c_of_range
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.multipart import part_ranges


class Read(Enum):
    """What reading a part has found."""

    RIGHT = "right"
    WRONG = "wrong"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an object.

    Attributes:
        named: The object.
        number: Which part, from 1.
        parts: How many there are.
        start: Where it begins.
        end: Where it ends.
        checksum: Its CRC-32C in the log.
    """

    named: NamedObject
    number: int
    parts: int
    start: int
    end: int
    checksum: int

    @property
    def text(self) -> str:
        """What is wrong with it if it differs, in words."""
        what = "its bytes have" if self.parts == 1 else f"its part {self.number} of {self.parts} has"
        return f"{what} another checksum than the log says"


def parts_of(named: NamedObject, stored: StoredObject) -> Iterator[Part]:
    """Yield the parts of an object as the log states them."""
    ranges = part_ranges(stored.size, stored.part_size)
    for number, ((start, end), checksum) in enumerate(zip(ranges, stored.part_crc32c, strict=True), 1):
        yield Part(named, number, len(ranges), start, end, checksum)


async def read_part(bucket: Bucket, keys: FolderKeys, part: Part, read_size: int) -> tuple[Read, str]:
    """Read a part; one that is wrong, twice. Return what was found, and why the store refuses.

    `read_size` bytes are in memory at once. Raises StoreError if the store does not answer.
    """
    key = keys.object_of(part.named.name_hash, part.named.object_name)
    try:
        for _ in range(2):
            if await crc32c_of_range(bucket, key, part.start, part.end, read_size) == part.checksum:
                return Read.RIGHT, ""
    except (NoSuchKey, AnswerTooShort, AnswerTooLong):
        return Read.GONE, ""
    except RequestRefused as error:
        return Read.REFUSED, str(error)
    return Read.WRONG, ""
