"""An object that exists already: what the log is to say of it (docs/format.md, "Objects")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.checksums import crc32c_of_range
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.multipart import part_ranges


async def read_stored_object(
    bucket: Bucket,
    key: str,
    name: str,
    file_info: FileInfo,
    part_size: int,
    read_size: int,
    check: Callable[[bytes, FileInfo], Awaitable[object]],
) -> StoredObject:
    """Check that an object holds the content of `file_info`, and return what the log says of it.

    Args:
        bucket: The store.
        key: The object's key.
        name: The last segment of the key.
        file_info: The file; the object may have the trailer of an older file info with the same content.
        part_size: The part size that the part grid gives, whatever the parts of the upload were: only the checksums
            depend on it. 0 for one part.
        read_size: How many bytes are in memory at once.
        check: Calls `trailer.check_trailer`.

    Raises NoSuchKey, DataError if the object holds something else, or another StoreError.
    """
    object_size = await bucket.size(key)
    if object_size is None:
        raise NoSuchKey(f"{key}: no such object")
    data_size = file_info.message.size
    try:
        if object_size <= data_size:
            raise DataError("it is too short")
        await check(await bucket.get(key, data_size, object_size - data_size), file_info)
    except DataError as error:
        raise DataError(f"{key} does not hold the content that its name says: {error}") from error
    checksums = [
        await crc32c_of_range(bucket, key, start, end, read_size) for start, end in part_ranges(object_size, part_size)
    ]
    return StoredObject(name, object_size, part_size, tuple(checksums))
