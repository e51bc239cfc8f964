"""Copies one object from a bucket to another one, through this machine, and compares its checksums with the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import crc32c

from untrusted_s3.accounts import Account
from untrusted_s3.errors import AnswerTooShort, DataError, DeletionDenied, NoSuchKey, UploadLost
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.checksums import crc32c_of_range
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.progress import FileProgress
from untrusted_s3.settings import Settings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.bucket import Bucket, UploadedPart
from untrusted_s3.store.listing import up_to
from untrusted_s3.store.multipart import part_ranges
from untrusted_s3.store.pages import MAX_PART_NUMBER
from untrusted_s3.vault.concurrency import for_each

_OWNER = "copy"


class ObjectCopier:
    """`memory` is for the bytes of objects on their way."""

    def __init__(self, source: Bucket, target: Bucket, memory: int, settings: Settings) -> None:
        self._source = source
        self._target = target
        self._memory = Account(memory)
        self._parts_of_object = settings.reading.read_ahead
        self._reads = AdaptiveLimit(settings.reading.concurrent_reads, settings.reading.most_reads, "reads").of(_OWNER)
        uploads = UploadLimits.of(settings.objects)
        self._uploads, self._part_uploads = uploads.objects.of(_OWNER), uploads.parts.of(_OWNER)

    async def copy(self, key: str, stored: StoredObject, progress: FileProgress) -> None:
        """Copy an object. An unfinished upload to the same key is continued.

        Raises DataError if the source does not have it as the log says, and StoreError.
        """
        ranges = part_ranges(stored.size, stored.part_size)
        if len(ranges) != len(stored.part_crc32c):
            raise DataError(
                f"the log has {len(stored.part_crc32c)} checksums for the {len(ranges)} parts of its object"
            )
        if len(ranges) == 1:
            async with self._read(key, 0, stored.size, stored.part_crc32c[0]) as body, self._uploads:
                await self._target.put(key, [body])
            return
        upload_id, found = await self._find_upload(key, ranges)
        etags = {number: part.etag for number, part in found.items()}

        async def copy(number: int) -> None:
            start, end = ranges[number - 1]
            if number not in etags:
                checksum = stored.part_crc32c[number - 1]
                async with self._read(key, start, end, checksum) as body, self._part_uploads:
                    etags[number] = await self._target.upload_part(key, upload_id, number, [body])
            progress.add(end - start)

        await for_each(range(1, len(ranges) + 1), copy, self._parts_of_object)
        await self._target.complete_multipart_upload(key, upload_id, [etags[number] for number in sorted(etags)])
        for number in found:  # nobody has compared them
            start, end = ranges[number - 1]
            checksum = await crc32c_of_range(self._target, key, start, end, self._read_size)
            if checksum != stored.part_crc32c[number - 1]:
                try:
                    await self._target.delete(key)
                except DeletionDenied:
                    await self._target.put(key, [b""])  # of another size: the next run copies it
                raise DataError(f"part {number} of an upload from before was damaged: the object was not copied")

    async def _find_upload(self, key: str, ranges: list[tuple[int, int]]) -> tuple[str, dict[int, UploadedPart]]:
        """Return an unfinished upload and the parts that it has, or begin one."""
        async for upload in self._target.list_multipart_uploads(key):
            if upload.key != key:  # the listing is by prefix
                continue
            try:
                listed = up_to(MAX_PART_NUMBER, self._target.list_parts(key, upload.upload_id), key)
                parts = {part.number: part async for part in listed}
            except UploadLost:
                continue
            sizes = {number: end - start for number, (start, end) in enumerate(ranges, 1)}
            return upload.upload_id, {number: part for number, part in parts.items() if part.size == sizes.get(number)}
        return await self._target.create_multipart_upload(key), {}

    @property
    def _read_size(self) -> int:
        return max(self._memory.capacity // 4, 1)

    @contextlib.asynccontextmanager
    async def _read(self, key: str, start: int, end: int, checksum: int) -> AsyncIterator[bytes]:
        """Provide the bytes of a part while there is memory for them. Raises DataError or StoreError."""
        held = min(end - start, self._memory.capacity)
        with self._memory.share(_OWNER) as share:
            await share.acquire(held)
            try:
                async with self._reads:
                    body = await self._source.get(key, start, end - start)
            except NoSuchKey as error:
                raise DataError("the object is missing") from error
            except AnswerTooShort as error:
                raise DataError("the object is too short") from error
            if await asyncio.to_thread(crc32c.crc32c, body) != checksum:
                raise DataError(f"the object differs from the checksum in the log, at byte {start} or after")
            yield body
