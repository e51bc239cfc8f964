"""Objects with file data as they lie in the bucket: blocks, then the trailer (docs/format.md, "Objects")."""

from __future__ import annotations

from collections.abc import Sequence

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


async def read_stored_object(bucket: Bucket, key: str, file_info: FileInfo) -> StoredObject:
    """Reads an object that is there already and holds the content of `file_info`, perhaps with an older trailer.

    Raises NoSuchKey, or DataError where it is something else.
    """
    object_size = await bucket.size(key)
    if object_size is None:
        raise NoSuchKey(f"{key}: no such object")
    await _check_trailer(bucket, key, object_size, file_info)
    size = part_size(file_info.message.size)
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
