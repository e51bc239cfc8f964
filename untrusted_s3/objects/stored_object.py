"""Objects with file data as they lie in the bucket: blocks, then the trailer (docs/format.md, "Objects")."""

from __future__ import annotations

from collections.abc import Sequence

import crc32c

from untrusted_s3 import limits
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
    return part_size(file_info.message.size, file_info.message.blocks[0].size)


async def crc32c_of_range(bucket: Bucket, key: str, start: int, end: int) -> int:
    """The CRC-32C of a range of an object, read piece by piece. Raises StoreError."""
    checksum = 0
    for position in range(start, end, limits.READ_BACK_SIZE):
        size = min(limits.READ_BACK_SIZE, end - position)
        checksum = crc32c.crc32c(await bucket.get(key, position, size), checksum)
    return checksum


async def read_stored_object(bucket: Bucket, key: str, file_info: FileInfo) -> StoredObject:
    """Reads an object that is there already and holds the content of `file_info`, perhaps with an older trailer.

    Raises NoSuchKey, or DataError where it is something else.
    """
    object_size = await bucket.size(key)
    if object_size is None:
        raise NoSuchKey(f"{key}: no such object")
    await _check_trailer(bucket, key, object_size, file_info)
    # The rule's grid, whatever parts it was uploaded in: checksums need no other.
    size = object_part_size(file_info)
    checksums = [await crc32c_of_range(bucket, key, start, end) for start, end in part_ranges(object_size, size)]
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
