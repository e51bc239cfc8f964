"""Objects with file data as they lie in the bucket: blocks, then the trailer (docs/format.md, "Objects")."""

from __future__ import annotations

from collections.abc import Sequence

import crc32c

from untrusted_s3 import limits
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.store.bucket import Bucket, Buffer
from untrusted_s3.store.multipart import part_ranges, part_size


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


async def read_stored_object(bucket: Bucket, key: str, name: str, file_info: FileInfo) -> StoredObject:
    """Return what the log says of an object that exists already and holds the content of `file_info`.

    The object may have an older trailer. `key` is the whole key, `name` its last segment. Raises NoSuchKey, DataError
    where the object holds something else, or another StoreError.
    """
    object_size = await bucket.size(key)
    if object_size is None:
        raise NoSuchKey(f"{key}: no such object")
    data_size = file_info.message.size
    try:
        if object_size <= data_size:
            raise DataError("it is too short")
        check_trailer(await bucket.get(key, data_size, object_size - data_size), file_info)
    except DataError as error:
        raise DataError(f"{key} does not hold the content that its name says: {error}") from error
    # The parts of the rule, whatever the upload's parts were: only the checksums depend on them.
    size = object_part_size(file_info)
    checksums = [await crc32c_of_range(bucket, key, start, end) for start, end in part_ranges(object_size, size)]
    return StoredObject(name, object_size, size, tuple(checksums))
