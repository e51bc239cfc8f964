"""Brings one large file into the store part by part: what an interrupted upload has is kept, what the object of the
version before has is copied inside the store, and the rest is uploaded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

import structlog

from untrusted_s3 import limits
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import PreconditionFailed, PullStopped, StoreError, StoreRefused, UploadLost
from untrusted_s3.objects.assembly import Assembly, RequestedRange
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.stored_object import crc32c_of, crc32c_of_range
from untrusted_s3.store.bucket import Bucket, UploadedPart
from untrusted_s3.store.multipart import part_ranges

_logger = structlog.get_logger()


class PartWorkers:
    """What all large pulls of a folder share. `budget` bounds the bytes of parts in memory; only a few parts are sent
    at once, for more would not be faster. While `draining`, no part is begun."""

    def __init__(self, bucket: Bucket, budget: ByteBudget, counters: Counters) -> None:
        self.bucket = bucket
        self.budget = budget
        self.counters = counters
        self.uploads = asyncio.Semaphore(limits.CONCURRENT_PART_UPLOADS)
        self.copies = asyncio.Semaphore(limits.CONCURRENT_PART_COPIES)
        self.draining = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that the upload has. Its checksum is None where its bytes did not pass through us."""

    etag: str
    crc32c: int | None


class MultipartPull:
    """One upload of one object, or the continuation of one that was interrupted.

    `superseded` says whether the content is not wanted any more. Then an upload that did not get to its end is dropped,
    else it stays for the next pull of the same content, by whichever gateway.
    """

    def __init__(
        self,
        workers: PartWorkers,
        key: str,
        part_size: int,
        assembly: Assembly,
        previous: PreviousObject | None,
        superseded: Callable[[], bool],
    ) -> None:
        self._workers = workers
        self._bucket = workers.bucket
        self._counters = workers.counters
        self._key = key
        self._assembly = assembly
        self._previous = previous
        self._superseded = superseded
        self._ranges = dict(enumerate(part_ranges(assembly.size, part_size), 1))
        self._upload_id = ""
        self._parts: dict[int, _Part] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def run(self) -> tuple[int, ...]:
        """Makes the object complete and gives the CRC-32C of each part.

        Raises PreconditionFailed where the object is there by now, PullStopped, BlockUnavailable, PreviousObjectGone,
        or another StoreError.
        """
        await self._find_upload()
        try:
            await self._bring_in_parts()
            etags = [self._parts[number].etag for number in self._ranges]
            await self._bucket.complete_multipart_upload(self._key, self._upload_id, etags)
        except BaseException as error:
            # What the store refuses to complete would be refused the next time too.
            if isinstance(error, PreconditionFailed | StoreRefused) or self._superseded():
                with contextlib.suppress(StoreError):  # what cannot be dropped now is dropped for its age
                    await asyncio.shield(self._bucket.abort_multipart_upload(self._key, self._upload_id))
            raise
        return tuple([await self._crc32c(number) for number in self._ranges])

    async def _find_upload(self) -> None:
        """Takes up the upload of this content that got furthest; where there is none, begins one."""
        async for upload in self._bucket.list_multipart_uploads(self._key):
            if upload.key != self._key:  # it begins alike
                continue
            try:
                listed = [part async for part in self._bucket.list_parts(self._key, upload.upload_id)]
            except UploadLost:
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
        """Whether a part fits between parts of ours: the ciphertext of a block that lies in two would differ, and the
        trailer may be that of another file info."""
        start, end = self._ranges.get(part.number, (0, 0))
        return part.size == end - start and self._assembly.whole_blocks(start, end) is not None

    async def _bring_in_parts(self) -> None:
        """Begins one part after the other. After a failure no more are begun, but those under way may end: the next
        pull need not do them again."""
        try:
            for number, (start, end) in self._ranges.items():
                if number not in self._parts:
                    await self._begin_part(number, start, end)
            await self._all_ended()
        except PullStopped as error:
            self._error = self._error or error
            if not self._superseded():
                await self._all_ended()
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error

    async def _begin_part(self, number: int, start: int, end: int) -> None:
        if self._previous is not None:
            numbers = self._assembly.whole_blocks(start, end)
            if numbers is not None and self._previous.has_all(numbers):
                self._run(self._copy(self._previous, number, start, end))
                return
        # Only a part whose memory is granted as a whole may begin, so every part that began can finish.
        await self._workers.budget.acquire(end - start)
        try:
            self._check()
        except PullStopped:
            self._workers.budget.release(end - start)
            raise
        requested = self._assembly.request(start, end)
        self._run(self._upload(number, requested)).add_done_callback(partial(self._release, requested))

    def _check(self) -> None:
        """Raises PullStopped where no part may begin any more."""
        if self._error is not None:
            raise PullStopped("another part failed")
        if self._workers.draining:
            raise PullStopped("the gateway stops")
        if self._superseded():
            raise PullStopped("the file has changed meanwhile")

    async def _copy(self, previous: PreviousObject, number: int, start: int, end: int) -> None:
        async with self._workers.copies:
            self._check()
            etag = await previous.copy_part(self._key, self._upload_id, number, start, end)
        self._parts[number] = _Part(etag, previous.crc32c(start, end))
        self._counters.parts_copied.inc()
        self._counters.part_bytes_copied.inc(end - start)

    async def _upload(self, number: int, requested: RequestedRange) -> None:
        pieces = await requested.pieces()
        async with self._workers.uploads:
            etag = await self._bucket.upload_part(self._key, self._upload_id, number, pieces)
        self._parts[number] = _Part(etag, crc32c_of(pieces))
        self._counters.parts_sent.inc()
        self._counters.object_bytes_written.inc(requested.end - requested.start)

    def _run(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            self._error = self._error or error

    def _release(self, requested: RequestedRange, task: asyncio.Task[None]) -> None:
        # Not by the task itself: one that is cancelled before its first step does nothing.
        self._workers.budget.release(requested.end - requested.start)
        requested.cancel()

    async def _all_ended(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _crc32c(self, number: int) -> int:
        """The checksum of a part of the complete object, read back where its bytes did not pass through us."""
        known = self._parts[number].crc32c
        return known if known is not None else await crc32c_of_range(self._bucket, self._key, *self._ranges[number])
