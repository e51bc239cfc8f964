"""Copies the object of a file from another store, as it is, and only if it is what the log says."""

from __future__ import annotations

import contextlib

from untrusted_s3.errors import AnswerTooShort, NoSuchKey, StoreError
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.checksums import crc32c_of, crc32c_of_range
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.deletions import where_allowed
from untrusted_s3.store.multipart import part_ranges
from untrusted_s3.units import MIB

_READ_SIZE = 8 * MIB


async def is_whole(bucket: Bucket, key: str, stored: StoredObject) -> bool:
    """Return whether an object has the size and the checksums that a log states. Raises StoreError."""
    if await bucket.size(key) != stored.size:
        return False
    try:
        for (start, end), checksum in zip(part_ranges(stored.size, stored.part_size), stored.part_crc32c, strict=True):
            if await crc32c_of_range(bucket, key, start, end, _READ_SIZE) != checksum:
                return False
    except (NoSuchKey, AnswerTooShort):
        return False
    return True


async def copy_object(source: Bucket, source_key: str, target: Bucket, key: str, stored: StoredObject) -> bool:
    """Write an object of another store under a key, in place of what is there.

    Each part is compared with its checksum on the way; one part is in memory at once. Return False, with nothing
    changed, if the other store does not have the object as the log says. Raises StoreError.
    """
    if not await is_whole(source, source_key, stored):
        return False
    if not stored.part_size:
        body = await source.get(source_key, 0, stored.size)
        if crc32c_of([body]) != stored.part_crc32c[0]:
            return False
        await target.put(key, [body])
        return True
    upload_id = await target.create_multipart_upload(key)
    try:
        etags = []
        for number, (start, end) in enumerate(part_ranges(stored.size, stored.part_size), 1):
            body = await source.get(source_key, start, end - start)
            if crc32c_of([body]) != stored.part_crc32c[number - 1]:
                with where_allowed():
                    await target.abort_multipart_upload(key, upload_id)
                return False
            etags.append(await target.upload_part(key, upload_id, number, [body]))
        await target.delete(key)  # a key that is taken may not be completed
        await target.complete_multipart_upload(key, upload_id, etags)
    except BaseException:
        with contextlib.suppress(StoreError):
            await target.abort_multipart_upload(key, upload_id)
        raise
    return True
