"""A folder's log: immutable segments at consecutive positions, each created once (docs/format.md, "The log").

The rules that several gateways on one bucket rely on:

1. A segment at position n + 1 is written by a PUT with `If-None-Match: *`, by a gateway that has applied all up to n.
   Where the key is taken, somebody else was first: apply theirs, drop those of ours that are not newer any more,
   number the rest anew, and try the next position.
2. An object is complete before the entry that names it is appended, and an entry is announced to peers only after
   its segment is written.
3. Segments are deleted only when a checkpoint covers them and SEGMENT_RETENTION has passed. A writer that stalled
   could then create a deleted position a second time. It cannot: the PUT is a presigned one that was signed no later
   than APPEND_LIFETIME after the writer last saw the end of the log, and the store refuses it, by the store's own
   clock, APPEND_LIFETIME after it was signed. Both together are far below SEGMENT_RETENTION. A clock of ours that
   stood still signs in the past, and the store refuses that as well.
4. A reader that has not looked at the log for half of SEGMENT_RETENTION begins again at the newest checkpoint, for
   the segment that it would read next may be gone, and a missing segment means the end of the log.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import NoSuchKey, PreconditionFailed
from untrusted_s3.index.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.segment import Entry, PeerCursor, Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

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

    async def append(self, entries: Sequence[Entry], cursors: Sequence[PeerCursor] = ()) -> None:
        """Extends the log by those of `entries` that are newer than what it has, and by `cursors`.

        After it returns, the state reflects every entry or something newer of the same name. Where it raises, the
        segment may have been written all the same; appending again is harmless.
        """
        async with self._lock:
            await self._append(entries, cursors)

    async def _append(self, entries: Sequence[Entry], cursors: Sequence[PeerCursor]) -> None:
        while True:
            if not 0 <= self._clock() - self._last_look <= limits.APPEND_LIFETIME:
                await self._look()
            entries = [entry for entry in entries if self.state.wants(entry.file_info)]
            if not entries and not cursors:
                return
            position = self.state.position + 1
            segment = Segment(
                writer=self._writer,
                append_id=secrets.token_bytes(16),
                time_ms=int(self._clock() * 1000),
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
                if not await self._apply_next():
                    raise
                continue
            self._last_look = self._clock()
            self.state.apply(position, segment)
            self._bytes_since_checkpoint += len(body)
            return

    async def _look(self) -> None:
        if not 0 <= self._clock() - self._last_look <= limits.SEGMENT_RETENTION / 2:
            await self._load_checkpoint()
        while await self._apply_next():
            pass

    async def _apply_next(self) -> bool:
        """Applies the segments that follow, some fetched ahead. False at the end of the log."""
        looked = self._clock()
        first = self.state.position + 1
        ahead = 1 if self._last_look > float("-inf") else limits.SEGMENT_READ_AHEAD
        found = await asyncio.gather(*(self._read(position) for position in range(first, first + ahead)))
        for position, segment in enumerate(found, first):
            if segment is None:
                self._last_look = looked
                return False
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
        newest = await newest_checkpoint(self._bucket, self._keys)
        self._checkpoint_position = newest
        if newest <= self.state.position:
            return
        path = self.state.path
        self.state.close()
        remove_database(path)
        try:
            await read_checkpoint(self._bucket, self._keys, newest, path)
        finally:
            self.state.reopen()
        _logger.info("checkpoint loaded", position=newest)

    @property
    def checkpoint_due(self) -> bool:
        """Whether enough has been appended since the newest checkpoint."""
        since = self.state.position - self._checkpoint_position
        return since >= limits.CHECKPOINT_SEGMENTS or (
            since > 1 and self._bytes_since_checkpoint > limits.CHECKPOINT_BYTES
        )

    async def checkpoint(self) -> None:
        """Writes a checkpoint of the state as it is now."""
        self._bytes_since_checkpoint = 0
        self._checkpoint_position = await write_checkpoint(self._bucket, self._keys, self.state)
        _logger.info("checkpoint written", position=self._checkpoint_position)
