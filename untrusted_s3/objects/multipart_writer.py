"""Writes one large object in parts.

Parts that an unfinished upload of the same content has are kept, unchanged parts of the previous object are copied
inside the store, and the rest is uploaded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

import structlog

from untrusted_s3.accounts import Share
from untrusted_s3.counters import Counters
from untrusted_s3.errors import PreconditionFailed, StoreError, StoreRefused, UploadLost, WriteStopped
from untrusted_s3.objects.assembly import Assembly, RequestedRange, patiently
from untrusted_s3.objects.checksums import crc32c_of, crc32c_of_range
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.uploads import may_be_continued
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.adaptive_limit import Places
from untrusted_s3.store.bucket import Bucket, UploadedPart
from untrusted_s3.store.listing import up_to
from untrusted_s3.store.multipart import part_ranges
from untrusted_s3.store.pages import MAX_PART_NUMBER
from untrusted_s3.supervisor import TaskSet

_logger = structlog.get_logger()
_UPLOADS_TRIED = 1000


class PartTransfers:
    """What the multipart writers of a folder share.

    Attributes:
        bucket: The store.
        counters: The gateway's counters.
        settings: How objects are written.
        uploads: The folder's places for parts that are sent.
        copies: Bounds how many parts are copied at once.
        draining: While set, no part is begun.
    """

    def __init__(self, bucket: Bucket, counters: Counters, settings: ObjectSettings, uploads: Places) -> None:
        self.bucket = bucket
        self.counters = counters
        self.settings = settings
        self.uploads = uploads
        self.copies = asyncio.Semaphore(settings.concurrent_part_copies)
        self.draining = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that the upload has. Its checksum is None if the gateway has not seen its bytes."""

    etag: str
    crc32c: int | None


class MultipartWriter:
    """One upload of one object, or the continuation of an unfinished one. `memory` is for its parts.

    `superseded` returns whether the content is no longer wanted. If so, an upload that fails is aborted; else it stays
    for the next writer of the same content, in any gateway.
    """

    def __init__(
        self,
        transfers: PartTransfers,
        memory: Share,
        key: str,
        part_size: int,
        assembly: Assembly,
        previous: PreviousObject | None,
        superseded: Callable[[], bool],
    ) -> None:
        self._transfers = transfers
        self._memory = memory
        self._bucket = transfers.bucket
        self._counters = transfers.counters
        self._key = key
        self._assembly = assembly
        self._previous = previous
        self._superseded = superseded
        self._ranges = dict(enumerate(part_ranges(assembly.size, part_size), 1))
        self._upload_id = ""
        self._parts: dict[int, _Part] = {}
        self._tasks = TaskSet()
        self._error: BaseException | None = None

    async def run(self) -> tuple[int, ...]:
        """Write the object and return the CRC-32C of each part.

        Raises PreconditionFailed if the object exists by now, WriteStopped, BlockUnavailable, PreviousObjectGone or
        another StoreError.
        """
        await self._find_upload()
        completes = False
        try:
            await self._transfer_parts()
            etags = [self._parts[number].etag for number in self._ranges]
            completes = True
            await self._bucket.complete_multipart_upload(self._key, self._upload_id, etags)
        except BaseException as error:
            # A completion that the store refuses would be refused the next time too. A part may not be: its request
            # may have been too late.
            is_refused = completes and isinstance(error, PreconditionFailed | StoreRefused)
            if is_refused or self._superseded():
                with contextlib.suppress(StoreError):  # upkeep aborts it later, because of its age
                    await asyncio.shield(self._bucket.abort_multipart_upload(self._key, self._upload_id))
            raise
        return tuple([await self._crc32c(number) for number in self._ranges])

    async def _find_upload(self) -> None:
        """Continue the unfinished upload of this content that has most parts, or begin one."""
        found = 0
        async for upload in self._bucket.list_multipart_uploads(self._key):
            if upload.key != self._key:  # the listing is by prefix
                continue
            found += 1
            if found > _UPLOADS_TRIED:
                break
            try:
                parts_of = self._bucket.list_parts(self._key, upload.upload_id)
                listed = [part async for part in up_to(MAX_PART_NUMBER, parts_of, self._key)]
            except UploadLost:
                continue
            if not may_be_continued(upload, listed):
                continue
            parts = {part.number: _Part(part.etag, None) for part in listed if self._is_usable(part)}
            if not self._upload_id or len(parts) > len(self._parts):
                self._upload_id, self._parts = upload.upload_id, parts
        if not self._upload_id:
            self._upload_id = await self._bucket.create_multipart_upload(self._key)
        if self._parts:
            self._counters.parts_resumed.inc(len(self._parts))
            _logger.info("upload continued", key=self._key, parts=len(self._parts), of=len(self._ranges))

    def _is_usable(self, part: UploadedPart) -> bool:
        """Return whether a part that was uploaded before fits between new ones.

        A block that lies in two parts would have another ciphertext in each, and the trailer may be that of another
        file info.
        """
        start, end = self._ranges.get(part.number, (0, 0))
        return part.size == end - start and self._assembly.whole_blocks(start, end) is not None

    async def _transfer_parts(self) -> None:
        """Begin one part after the other, and wait for all.

        After a failure no more parts are begun. Those under way may end, so that the next writer finds them.
        """
        try:
            for number, (start, end) in self._ranges.items():
                if number not in self._parts:
                    await self._begin_part(number, start, end)
            await self._tasks.join()
        except WriteStopped as error:
            self._error = self._error or error
            if not self._superseded():
                await self._tasks.join()
        finally:
            await self._tasks.cancel()
        if self._error is not None:
            raise self._error

    async def _begin_part(self, number: int, start: int, end: int) -> None:
        if self._previous is not None:
            numbers = self._assembly.whole_blocks(start, end)
            if numbers is not None and self._previous.has_all(numbers):
                self._run(self._copy(self._previous, number, start, end))
                return
        # The memory of a part is granted as a whole, so that every part that began can finish.
        await self._memory.acquire(end - start)
        try:
            self._check()
            requested = await self._assembly.request(start, end)
        except BaseException:
            self._memory.release(end - start)
            raise
        self._run(self._upload(number, requested)).add_done_callback(partial(self._release, requested))

    def _check(self) -> None:
        """Raise WriteStopped if no more parts may begin."""
        if self._error is not None:
            raise WriteStopped("another part failed")
        if self._transfers.draining:
            raise WriteStopped("the gateway stops")
        if self._superseded():
            raise WriteStopped("the file has changed meanwhile")

    async def _copy(self, previous: PreviousObject, number: int, start: int, end: int) -> None:
        async with self._transfers.copies:
            self._check()
            etag = await previous.copy_part(self._key, self._upload_id, number, start, end)
        self._parts[number] = _Part(etag, previous.crc32c(start, end))
        self._counters.parts_copied.inc()
        self._counters.part_bytes_copied.inc(end - start)

    async def _upload(self, number: int, requested: RequestedRange) -> None:
        pieces = await patiently(requested, self._memory, self._transfers.settings.patience)
        async with self._transfers.uploads:
            etag = await self._bucket.upload_part(self._key, self._upload_id, number, pieces)
        self._parts[number] = _Part(etag, crc32c_of(pieces))
        self._counters.parts_sent.inc()
        self._counters.object_bytes_written.inc(requested.end - requested.start)

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        return self._tasks.start(work, self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._error = self._error or error

    def _release(self, requested: RequestedRange, task: asyncio.Task[None]) -> None:
        # In a callback because a task that is cancelled before its first step does not run at all.
        self._memory.release(requested.end - requested.start)
        requested.cancel()

    async def _crc32c(self, number: int) -> int:
        """Return the checksum of a part; it is read back from the object if the gateway has not seen its bytes."""
        known = self._parts[number].crc32c
        if known is not None:
            return known
        start, end = self._ranges[number]
        return await crc32c_of_range(self._bucket, self._key, start, end, self._transfers.settings.read_back_size)
