"""Brings one large file into the store as a multipart upload, part by part, so that no more than some parts of it are
ever in memory.

Parts that an earlier try has left in the store are not sent again, and parts that have not changed since the version
before are copied inside the store. An upload that does not end well stays, so that the next try can go on; only
where the store refuses it, it is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import structlog

from untrusted_s3 import limits
from untrusted_s3.errors import BlockUnavailable, NoSuchKey, PreconditionFailed, StoreError, StoreRefused
from untrusted_s3.index.stored_object import PreviousObject, crc32c_of
from untrusted_s3.node.assembly import Assembly
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.store.bucket import Bucket, UploadedPart
from untrusted_s3.store.multipart import part_ranges

_logger = structlog.get_logger()


class PartSlots:
    """How many parts at a time may be sent, and copied inside the store; `stopping` is set where no part may begin."""

    def __init__(self) -> None:
        self.uploads = asyncio.Semaphore(limits.CONCURRENT_PART_UPLOADS)
        self.copies = asyncio.Semaphore(limits.CONCURRENT_PART_COPIES)
        self.stopping = False


class MultipartPull:
    """One try to bring in one object of which `assembly` gives the bytes."""

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        part_size: int,
        assembly: Assembly,
        previous: PreviousObject | None,
        budget: ByteBudget,
        slots: PartSlots,
        counters: Counters,
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._assembly = assembly
        self._previous = previous
        self._budget = budget
        self._slots = slots
        self._counters = counters
        self._part_size = part_size
        self._ranges = part_ranges(assembly.size, part_size)
        # What is known of each part, by its number.
        self._etags: dict[int, str] = {}
        self._checksums: dict[int, int] = {}

    async def run(self) -> tuple[int, ...]:
        """Completes the upload and gives the CRC-32C of each part.

        Raises BlockUnavailable or StoreError; NoSuchKey also where the object of the version before is gone, and
        PreconditionFailed where the key is taken.
        """
        upload_id = await self._find_upload() or await self._bucket.create_multipart_upload(self._key)
        try:
            await self._bring_in_parts(upload_id)
        except NoSuchKey:
            await self._drop(upload_id)
            raise
        etags = [self._etags[number] for number in range(1, len(self._ranges) + 1)]
        try:
            await self._bucket.complete_multipart_upload(self._key, upload_id, etags)
        except (NoSuchKey, PreconditionFailed, StoreRefused):
            await self._drop(upload_id)
            raise
        return await self._all_checksums()

    async def _drop(self, upload_id: str) -> None:
        """Ends an upload that another try could not make any better."""
        with contextlib.suppress(StoreError):  # then it goes when it is old
            await self._bucket.abort_multipart_upload(self._key, upload_id)

    async def _find_upload(self) -> str | None:
        """The upload that has most of the parts, of those that earlier tries have left."""
        best: str | None = None
        try:
            uploads = [one async for one in self._bucket.list_multipart_uploads(self._key) if one.key == self._key]
            for upload in uploads:
                with contextlib.suppress(NoSuchKey):  # completed or dropped meanwhile
                    parts = [part async for part in self._bucket.list_parts(self._key, upload.upload_id)]
                    etags = {part.number: part.etag for part in parts if self._is_usable(part)}
                    if best is None or len(etags) > len(self._etags):
                        best, self._etags = upload.upload_id, etags
        except StoreRefused as error:
            _logger.warning("cannot look for unfinished uploads", key=self._key, error=str(error))
            return None
        if self._etags:
            self._counters.parts_resumed.inc(len(self._etags))
            _logger.info("upload continued", key=self._key, parts=len(self._etags), of=len(self._ranges))
        return best

    def _is_usable(self, part: UploadedPart) -> bool:
        """Whether the part is one of ours that fits beside blocks fetched now, and beside any trailer."""
        if not 1 <= part.number <= len(self._ranges):
            return False
        start, end = self._ranges[part.number - 1]
        whole_blocks = self._assembly.begins_with_a_block(start) and self._assembly.begins_with_a_block(end)
        return part.size == end - start and end <= self._assembly.data_size and whole_blocks

    async def _bring_in_parts(self, upload_id: str) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for number, (start, end) in enumerate(self._ranges, 1):
                    if number in self._etags:
                        continue
                    if self._previous is not None and self._previous.has_range(start, end):
                        group.create_task(self._copy_part(upload_id, number, start, end))
                        continue
                    # Only a part whose memory is granted as a whole may begin, so every part that began can finish.
                    await self._budget.acquire(end - start)
                    if self._slots.stopping:
                        self._budget.release(end - start)
                        break
                    self._assembly.request(start, end)
                    part = group.create_task(self._send_part(upload_id, number, start, end))
                    part.add_done_callback(partial(self._release, end - start))
        except BaseExceptionGroup as error:
            raise error.exceptions[0] from error
        if len(self._etags) < len(self._ranges):
            raise BlockUnavailable("this gateway is stopping")

    async def _send_part(self, upload_id: str, number: int, start: int, end: int) -> None:
        pieces = await self._assembly.pieces(start, end)
        async with self._slots.uploads:
            self._etags[number] = await self._bucket.upload_part(self._key, upload_id, number, pieces)
        self._checksums[number] = crc32c_of(pieces)
        self._counters.parts_sent.inc()
        self._counters.object_bytes_written.inc(end - start)

    async def _copy_part(self, upload_id: str, number: int, start: int, end: int) -> None:
        assert self._previous is not None
        async with self._slots.copies:
            if self._slots.stopping:
                return
            self._etags[number] = await self._bucket.upload_part_copy(
                self._key, upload_id, number, self._previous.key, start, end
            )
        checksum = self._previous.checksum(start, end)
        if checksum is not None:
            self._checksums[number] = checksum
        self._counters.parts_copied.inc()

    def _release(self, size: int, task: asyncio.Task[None]) -> None:
        self._budget.release(size)

    async def _all_checksums(self) -> tuple[int, ...]:
        """The parts' checksums; those of parts that we never had in memory are read off the object."""
        for number, (start, end) in enumerate(self._ranges, 1):
            if number not in self._checksums:
                await self._budget.acquire(end - start)
                try:
                    self._checksums[number] = crc32c_of([await self._bucket.get(self._key, start, end - start)])
                finally:
                    self._budget.release(end - start)
        return tuple(self._checksums[number] for number in range(1, len(self._ranges) + 1))


async def abort_uploads(bucket: Bucket, key: str) -> None:
    """Drops all unfinished uploads of a key. Raises StoreError."""
    uploads: Sequence[str] = [one.upload_id async for one in bucket.list_multipart_uploads(key) if one.key == key]
    for upload_id in uploads:
        await bucket.abort_multipart_upload(key, upload_id)
