"""A folder's log: immutable segments at consecutive positions, each created once (docs/format.md, "The log").

The rules that several gateways on one bucket rely on:

1. A segment at position n + 1 is written by a PUT with `If-None-Match: *`, by a gateway that has applied all up to n.
   Where the key is taken, somebody else was first: apply theirs, drop those of ours that are not newer any more,
   number the rest anew, and try the next position.
2. An object is complete before the entry that names it is appended, and an entry is announced to peers only after
   its segment is written.
3. Segments are deleted only when a checkpoint covers them that is itself older than SEGMENT_RETENTION by the store's
   clock, and the newest checkpoint is never deleted (index/trimming.py). A checkpoint's age may count from the
   beginning of its upload, and the store refuses to complete that FILE_UPLOAD_LIFETIME later. So whoever has seen the
   end of the log, or found nothing newer than its own state among the checkpoints, can read on from there for what
   SEGMENT_RETENTION is more than FILE_UPLOAD_LIFETIME.
4. A missing segment is the end of the log only for a reader that has looked within half of SEGMENT_RETENTION, the
   answer's way included, and has come as far as every checkpoint that it saw. Any other begins again at the newest
   checkpoint; where that is damaged or gone, at the one before it, which serves if the segments after it are there.
5. A writer that stalled could create a deleted position a second time. It cannot: the PUT is a presigned one that was
   signed no later than APPEND_LIFETIME after the writer last saw the end of the log, and the store refuses it, by the
   store's own clock, APPEND_LIFETIME after it was signed. Both together are far below SEGMENT_RETENTION. A look
   counts from before its request. A clock of ours that stood still signs in the past, and one that runs ahead in the
   future, and the store refuses both.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, NoSuchKey, PreconditionFailed
from untrusted_s3.index.checkpoint import read_checkpoint, write_checkpoint
from untrusted_s3.index.entry import Entry, PeerCursor
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints

_logger = structlog.get_logger()


class FolderLog:
    """The log of one folder and the local state that follows it. One task at a time may append or refresh; the
    methods take care of that."""

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        state: FolderState,
        writer: DeviceID,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A log that is not loaded yet. `clock` gives seconds since 1970 UTC."""
        self.state = state
        self._bucket = bucket
        self._keys = keys
        self._writer = writer
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last_look = float("-inf")
        self._checkpoint_position = 0
        self._bytes_since_checkpoint = 0
        self._unreadable: dict[int, Exception] = {}  # checkpoints by their positions, and why

    async def load(self) -> None:
        """Brings the state up to the end of the log, by way of the newest checkpoint where that is ahead of it.

        Raises DataError where a segment or checkpoint is damaged.
        """
        async with self._lock:
            await self._look()

    async def refresh(self) -> bool:
        """Applies what others have appended since the last look. True where there was something."""
        async with self._lock:
            before = self.state.position
            await self._look()
            return self.state.position != before

    async def append(self, entries: Sequence[Entry], cursors: Sequence[PeerCursor] = ()) -> bool:
        """Extends the log by those of `entries` that are newer than what it has, and by `cursors`. False where nothing
        was left to write.

        After it returns, the state reflects every entry or something newer of the same name. Where it raises, the
        segment may have been written all the same; appending again is harmless.
        """
        async with self._lock:
            return await self._append(entries, cursors)

    async def _append(self, entries: Sequence[Entry], cursors: Sequence[PeerCursor]) -> bool:
        while True:
            while self._is_behind or not self._looked_within(limits.APPEND_LIFETIME):
                await self._look()
            entries = [entry for entry in entries if self.state.wants(entry.file_info)]
            if not entries and not cursors:
                return False
            position = self.state.position + 1
            signed = self._clock()
            segment = Segment(
                writer=self._writer,
                append_id=secrets.token_bytes(16),
                time_ms=int(signed * 1000),
                first_sequence=self.state.sequence + 1,
                entries=tuple(entries),
                cursors=tuple(cursors),
            )
            body = encode_segment(segment)
            try:
                await self._bucket.put(
                    self._keys.segment(position), [body], if_none_match=True, lifetime=limits.APPEND_LIFETIME
                )
            except PreconditionFailed:
                # Perhaps by our own PUT, whose answer was lost: then the second round finds nothing left to append.
                if not await self._apply_next(1):
                    raise
                continue
            self._last_look = signed
            self.state.apply(position, segment)
            self._bytes_since_checkpoint += len(body)
            return True

    def _looked_within(self, seconds: float) -> bool:
        return 0 <= self._clock() - self._last_look <= seconds

    @property
    def _is_behind(self) -> bool:
        """Whether the log is longer than the state, by a checkpoint that cannot be read: then segments after the state
        may have been deleted."""
        return self.state.position < max(self._unreadable, default=0)

    async def _look(self) -> None:
        ahead = 1
        while True:
            if not self._looked_within(limits.SEGMENT_RETENTION / 2):
                await self._load_checkpoint()
                ahead = limits.SEGMENT_READ_AHEAD
            if not await self._apply_next(ahead):
                return

    async def _apply_next(self, ahead: int) -> bool:
        """Applies the segments at the next positions, `ahead` of them. False at the end of the log."""
        looked = self._clock()
        first = self.state.position + 1
        found = await asyncio.gather(*(self._read(position) for position in range(first, first + ahead)))
        for position, segment in enumerate(found, first):
            if segment is None:
                if not self._looked_within(limits.SEGMENT_RETENTION / 2):
                    return True  # it may have been deleted while we waited
                if self._is_behind:
                    error = self._unreadable[max(self._unreadable)]
                    raise DataError(f"{error}; and {self._keys.segment(position)} is not there any more") from error
                self._last_look = looked
                return False
            if segment is EMPTY_SEGMENT:
                _logger.warning("an empty log segment is passed over", position=position)
            self.state.apply(position, segment)
        return True

    async def _read(self, position: int) -> Segment | None:
        key = self._keys.segment(position)
        try:
            body = await self._bucket.get(key)
        except NoSuchKey:
            return None
        self._bytes_since_checkpoint += len(body)
        return decode_segment(body, key)

    async def _load_checkpoint(self) -> None:
        """Takes the newest checkpoint that can be read, where one is ahead of the state."""
        self._unreadable.clear()
        while True:
            looked = self._clock()
            newest = await self._newest_checkpoint()
            if newest <= self.state.position:
                break
            try:
                await read_checkpoint(self._bucket, self._keys, newest, self.state)
                _logger.info("checkpoint loaded", position=newest)
                break
            except NoSuchKey as error:
                # Deleted by a trim; the next listing shows a newer one.
                self._unreadable[newest] = error
            except DataError as error:
                _logger.error("a checkpoint cannot be read, trying an older one", position=newest, error=str(error))
                self._unreadable[newest] = error
        self._checkpoint_position = newest
        self._last_look = looked

    async def _newest_checkpoint(self) -> int:
        """The position of the newest checkpoint, of those that can be read as far as we know; 0 for none."""
        found = await list_checkpoints(self._bucket, self._keys)
        return max(found.keys() - self._unreadable.keys(), default=0)

    @property
    def checkpoint_due(self) -> bool:
        """Whether so much has been appended since the newest checkpoint that a new one is worth its size."""
        since = self.state.position - self._checkpoint_position
        if since < 2:
            return False
        cost = self._bytes_since_checkpoint + since * limits.SEGMENT_COST
        return cost >= max(limits.CHECKPOINT_COST, self.state.file_size * limits.CHECKPOINT_SHARE)

    async def checkpoint_where_due(self) -> bool:
        """Writes a checkpoint, unless another gateway has written one lately."""
        newest = await self._newest_checkpoint()
        if newest > self._checkpoint_position:
            self._checkpoint_position = newest
            self._bytes_since_checkpoint = 0
        if not self.checkpoint_due:
            return False
        await self.checkpoint()
        return True

    async def checkpoint(self) -> None:
        """Writes a checkpoint of the state as it is now."""
        self._bytes_since_checkpoint = 0
        self._checkpoint_position = await write_checkpoint(self._bucket, self._keys, self.state)
        _logger.info("checkpoint written", position=self._checkpoint_position)
