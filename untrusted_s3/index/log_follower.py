"""Follows a folder's log, and keeps the local state at its end (index/log.py has the rules)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    DataError,
    LogWentBack,
    NoSuchKey,
    SegmentDamaged,
    SegmentsMissing,
    StoreError,
)
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.earlier_objects import find_earlier
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.index.garbage_guard import GarbageGuard
from untrusted_s3.index.log_damage import LogDamage
from untrusted_s3.index.log_end import LastSegment, check_last, is_end, missing_between, ranges
from untrusted_s3.index.rules import LOG_RULES, LogRules
from untrusted_s3.index.salvage import Salvaged, salvage
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.segment_reader import SegmentRead, SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.strange_segments import old_enough, remove_kept
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.deletions import where_allowed
from untrusted_s3.store.garbage import GARBAGE_RULES, GarbageRules
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

Result = TypeVar("Result")

_logger = structlog.get_logger()
_SETTINGS = LogSettings()


class LogFollower:
    """The log of one folder as it is read, and the local state that follows it.

    Several tasks may call its methods; one at a time reads or writes.

    Attributes:
        state: The local state.
        garbage: Keeps objects that are about to be deleted out of the log.
        check_entries: Whether all entries of a checkpoint are compared with their file infos when it is loaded.
        entries_written: How many entries this object has written to the log.
        checkpoints_written: How many checkpoints it has written.
        before_apply: Called with each segment before the state reflects it.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        state: FolderState,
        writer: DeviceID,
        settings: LogSettings = _SETTINGS,
        clock: Callable[[], float] = time.time,
        rules: LogRules = LOG_RULES,
        *,
        check_entries: bool = True,
        time_of_day: Callable[[], float] | None = None,
        garbage_rules: GarbageRules = GARBAGE_RULES,
    ) -> None:
        """Make a log that is not loaded yet. `clock` gives seconds since 1970 UTC, `time_of_day` too.

        Signatures and pauses go by `clock`. Segments carry the `time_of_day`, by default that of the store.
        """
        self.state = state
        self.garbage = GarbageGuard(bucket, keys, state, clock, garbage_rules)
        self.entries_written = self.checkpoints_written = 0
        self.before_apply: Callable[[Segment], None] = lambda segment: None
        self._bucket = bucket
        self._keys = keys
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._rules = rules
        self._time_of_day = time_of_day or bucket.now
        self._damage = LogDamage(bucket, keys, bucket.now)
        self.check_entries = check_entries
        self._reader = SegmentReader(bucket, keys, settings, clock)
        self._lock = asyncio.Lock()
        self._last_look = float("-inf")
        self._in_doubt = True  # whether the store may have lost the end of the log (rule 6)
        self._checkpoint_position = 0
        self._loaded_checkpoint = 0
        self._bytes_since_checkpoint = 0
        self._checked_position = 0  # up to here, the store had all segments at the last check
        self._stop: Callable[[], object] | None = None  # ends what is under way in a thread; None: nothing goes there
        self._unreadable: dict[int, Exception] = {}  # why the checkpoints at these positions cannot be read

    async def load(self) -> None:
        """Bring the state up to the end of the log, starting from the newest checkpoint where that is ahead of it.

        Raises LogWentBack where the store has lost segments that the state reflects, SegmentsMissing where it has lost
        others, SegmentDamaged, UnknownFormat where a newer program has written to the log, and StoreError.
        """
        async with self._working():
            await self._look()

    async def refresh(self) -> bool:
        """Apply the segments that other gateways have appended since the last look. Return whether there were any."""
        async with self._working():
            before = self.state.position
            await self._look()
            return self.state.position != before

    async def check(self, *, whole: bool = False) -> bool:
        """Look whether the store still has what the state reflects since the last check, and refresh.

        With `whole`, look at all of the log. Return whether there was anything new. Raises what `load` raises.
        """
        async with self._working():
            before = self.state.position
            self._in_doubt = True
            await self._look()
            position = self.state.position
            first = 1 if whole else max(min(self._checked_position, position), 1)
            missing = await missing_between(self._bucket, self._keys, first, position)
            if missing:
                below = self._keys.segments
                raise SegmentsMissing(
                    f"the log below {below} has no segment {ranges(missing)}, though it goes on to {position}"
                )
            self._checked_position = position
            return position != before

    @property
    def is_checked(self) -> bool:
        """Whether `check` has seen all that the state reflects."""
        return self._checked_position == self.state.position

    async def check_last(self) -> bool:
        """Look whether the store still has the last segment that the state reflects.

        Return whether there was anything new. Raises what `load` raises.
        """
        async with self._working():
            if await check_last(self._bucket, self._keys, self._reader, self.state) is LastSegment.SAME:
                return False
            before = self.state.position
            self._in_doubt = True
            await self._look()
            return self.state.position != before

    @property
    def damage(self) -> list[str]:
        """What of the log was found damaged in the store, though nothing that it said is lost here."""
        return self._damage.texts

    async def earlier_object(self, key: bytes, object_name: str, most: int) -> StoredObject | None:
        """Return what the log has said of an object of the name with this hash, if it tells before `most` bytes of it.

        Raises StoreError.
        """
        return await find_earlier(self._reader, self.state.position, key, object_name, most)

    async def remains(self, position: int) -> bool:
        """Return whether the store has anything of the log up to a position. Raises StoreError."""
        segments = await list_segments(self._bucket, self._keys)
        if segments and segments.ranges[0].start <= position:
            return True
        return min(await list_checkpoints(self._bucket, self._keys), default=position + 1) <= position

    async def salvage(self) -> Salvaged:
        """Replace the state by what the store has (index/salvage.py). Return what is lost.

        The next segment is then written after all that the store has.
        """
        async with self._working():
            looked = self._clock()
            salvaged = await salvage(
                self._bucket, self._keys, self._reader, self.state, check_entries=self.check_entries
            )
            self._unreadable.clear()
            self._damage.clear()
            self._loaded_checkpoint = self._checkpoint_position = self._bytes_since_checkpoint = 0
            self._checked_position = self.state.position
            self._last_look, self._in_doubt = looked, False
            return salvaged

    async def remove_kept(self, kept: Mapping[str, str]) -> None:
        """Delete what `salvage` has copied. A checkpoint must cover them. Raises StoreError.

        They stay where the credentials may not delete: readers of the log begin behind them. Segments that are so young
        that a stalled writer could take their places stay too, until a trim deletes them.
        """
        with where_allowed():
            old = await old_enough(self._bucket, self._keys, kept, self.state.position)
            await remove_kept(self._bucket, self._keys, old)

    @property
    def time_of_day(self) -> float:
        """The time by the store's clock, in seconds since 1970 UTC."""
        return self._time_of_day()

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        async with self._lock:
            try:
                yield
            except (StoreError, DataError):
                self._in_doubt = True
                raise

    def _looked_within(self, seconds: float) -> bool:
        return 0 <= self._clock() - self._last_look <= seconds

    @property
    def _is_behind(self) -> bool:
        """Whether an unreadable checkpoint is ahead of the state: then segments after the state may be deleted."""
        return self.state.position < max(self._unreadable, default=0)

    async def _look(self) -> None:
        depth = 1
        if self._in_doubt:
            found = await check_last(self._bucket, self._keys, self._reader, self.state)
            is_checkpoint = self.state.position == self._loaded_checkpoint
            if found is LastSegment.COVERED and not is_checkpoint and not self._is_behind:
                # The checkpoint may say something else of the state's position: the store may have lost the end of the
                # log since, and others have gone on.
                await self._load_checkpoint(replace=True)
                depth = self._settings.read_ahead
        while True:
            if not self._looked_within(self._rules.retention / 2):
                await self._load_checkpoint()
                depth = self._settings.read_ahead
            if await self._read_on(depth) and (
                not self._in_doubt or await is_end(self._bucket, self._keys, self.state.position + 1)
            ):
                self._in_doubt = False
                return

    async def _read_on(self, depth: int) -> bool:
        """Apply the segments after the state. Return whether the first missing one is the end of the log (rule 4)."""
        async with contextlib.aclosing(self._reader.read_after(self.state.position, depth)) as segments:
            async for found in segments:
                if found.segment is not None:
                    self._apply(found)
                elif not self._looked_within(self._rules.retention / 2):
                    return False
                elif self._is_behind:
                    error = self._unreadable[max(self._unreadable)]
                    raise SegmentsMissing(f"{error}; and {self._keys.segment(found.position)} is missing") from error
                else:
                    self._last_look = found.asked_at
        return True

    def _apply(self, found: SegmentRead, *, follows: bool = True) -> None:
        assert found.segment is not None
        if found.segment is EMPTY_SEGMENT:
            _logger.warning("empty log segment skipped", position=found.position)
        self.before_apply(found.segment)
        try:
            self.state.apply(found.position, found.segment, follows=follows)
        except LogWentBack:
            raise
        except DataError as error:
            raise SegmentDamaged(f"{self._keys.segment(found.position)} does not belong there: {error}") from error
        self._bytes_since_checkpoint += found.size

    async def _load_checkpoint(self, *, replace: bool = False) -> None:
        """Replace the state by the newest readable checkpoint where that is ahead of it.

        With `replace` also where it is at the same position.
        """
        self._unreadable.clear()
        while True:
            looked = self._clock()
            newest = await self._newest_checkpoint()
            if newest < self.state.position or (newest == self.state.position and not replace):
                break
            try:
                await read_checkpoint(self._bucket, self._keys, newest, self.state, check_entries=self.check_entries)
                _logger.info("checkpoint loaded", position=newest)
                self._loaded_checkpoint = newest
                break
            except NoSuchKey as error:
                # Deleted by a trim; the next listing shows a newer one.
                self._unreadable[newest] = error
            except DataError as error:
                _logger.error("checkpoint unreadable", position=newest, error=str(error))
                self._unreadable[newest] = error
                self._damage.checkpoint_found(newest, error)
        self._checkpoint_position = newest
        self._last_look = looked

    async def _newest_checkpoint(self) -> int:
        """Return the position of the newest checkpoint that is not known to be unreadable; 0 for none."""
        found = await list_checkpoints(self._bucket, self._keys)
        return max(found.keys() - self._unreadable.keys(), default=0)
