"""A check of a folder's log: all that is there is read, and the state is made from it (docs/format.md, "The log")."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import check_checkpoint, read_checkpoint
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.salvage import is_near, without_far
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.state_difference import difference
from untrusted_s3.problem import Finding, Kind, Problem
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments

_SETTINGS = LogSettings()
# How many missing segments of a gap are named.
_MISSING_NAMED = 1000
_IS_MISSING = "the log segment is missing"


async def check_log(bucket: Bucket, keys: FolderKeys, settings: LogSettings = _SETTINGS) -> AsyncIterator[Problem]:
    """Yield what is wrong with a log (`LogCheck`). Raises StoreError."""
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        check = LogCheck(bucket, keys, Path(directory), settings)
        try:
            async for finding in check.run():
                yield finding
        finally:
            check.close()


class LogCheck:
    """A check of a log, which a gateway may extend and trim meanwhile.

    The state is made from all segments that there are, from the oldest checkpoint on if the first segments are cleaned
    up. Each later checkpoint must say the same as that state. Where segments are missing or damaged, the state goes on
    from the next checkpoint that covers them or, if none does, with the segments after them.

    Attributes:
        state: What the log says: all of it after `run`.
        segments: How many segments were read.
        checkpoints: How many checkpoints there are.
        listed: How many segments there are to read.
        covered: The position of the newest checkpoint that is sound.
        is_whole: Whether the log begins with its first segment.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        directory: Path,
        settings: LogSettings = _SETTINGS,
        mend: Callable[[FolderState], Awaitable[None]] | None = None,
        rest: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """Make a check. Its files are in `directory`; `close` closes them.

        `rest` is called after each segment, with the seconds that it and what was compared after it took. `mend` is
        called for each checkpoint that is damaged or differs, with the state that it should say, if the log
        still tells it. It may raise StoreError.
        """
        self.state = FolderState(directory / "log.sqlite")
        self.segments = self.checkpoints = self.listed = self.covered = 0
        self.is_whole = False
        self._other = FolderState(directory / "checkpoint.sqlite")
        self._kept = directory / "doubted.sqlite"
        self._bucket = bucket
        self._keys = keys
        self._reader = SegmentReader(bucket, keys, settings)
        self._mend = mend
        self._rest = rest
        self._found: deque[Finding] = deque()
        # The checkpoints that are left, in rising order.
        self._ahead: deque[int] = deque()
        self._base = 0
        # A checkpoint that differs from the log. If the next segment follows it and not the log, it is right.
        self._doubted: Finding | None = None

    def close(self) -> None:
        """Close the files."""
        self.state.close()
        self._other.close()

    async def run(self) -> AsyncGenerator[Finding, None]:
        """Check the log. Yield what is wrong, each with the key of the object. Raises StoreError."""
        segments = await list_segments(self._bucket, self._keys)
        checkpoints = sorted(await list_checkpoints(self._bucket, self._keys))
        self.checkpoints = len(checkpoints)
        self.is_whole = 1 in segments
        if not self.is_whole:
            checkpoints = await self._begin(checkpoints)
        segments, far = without_far(segments, self._base)
        self.listed = len(segments)
        reached = max(segments.last, self._base)
        self._ahead.extend(position for position in checkpoints if is_near(position, reached))
        for key in [
            *map(self._keys.segment, far),
            *(self._keys.checkpoint(position) for position in checkpoints if not is_near(position, reached)),
        ]:
            self._find(key, Kind.SEGMENT_DAMAGED, "it is at a position that no log reaches")
        last, before, begun = self._base, None, time.monotonic()
        async with contextlib.aclosing(self._reader.read_each(segments)) as read:
            async for position, segment in read:
                if position > last + 1:
                    await self._cross(range(last + 1, position))
                last = max(last, position)
                self.segments += 1
                before = await self._take(position, segment, before)
                while self._found:
                    yield self._found.popleft()
                if self._rest is not None:
                    await self._rest(time.monotonic() - begun)
                    begun = time.monotonic()
        await self._settle()
        newest = max(self._ahead, default=0)
        if newest > last:
            await self._cross(range(last + 1, newest + 1))
        while self._ahead:
            await self._check_alone(self._ahead.popleft())
        await self._check_kept()
        while self._found:
            yield self._found.popleft()

    def _find(self, key: str, kind: Kind, reason: str) -> Finding:
        finding = Finding(key, reason.removeprefix(f"{key} "), kind)
        self._found.append(finding)
        return finding

    async def _begin(self, checkpoints: list[int]) -> list[int]:
        """Load the oldest checkpoint that is sound. Return those after it."""
        for number, position in enumerate(checkpoints):
            if await self._load(position):
                self._base = position
                return checkpoints[number + 1 :]
        return []

    async def _load(self, position: int) -> bool:
        """Go on from a checkpoint. Return whether it is sound."""
        try:
            await read_checkpoint(self._bucket, self._keys, position, self.state)
        except NoSuchKey:
            return False  # trimmed meanwhile
        except DataError as error:
            self._find(self._keys.checkpoint(position), Kind.CHECKPOINT_DAMAGED, str(error))
            return False
        self.covered = position
        return True

    async def _load_covering(self, position: int) -> bool:
        """Go on from the first sound checkpoint at a position or after it. Return whether there is one."""
        while self._ahead:
            checkpoint = self._ahead.popleft()
            if checkpoint < position:
                await self._check_alone(checkpoint)
            elif await self._load(checkpoint):
                return True
        return False

    async def _cross(self, gap: range) -> None:
        """Go on behind missing segments."""
        if gap.stop - 1 <= self.state.position:
            return
        await self._settle()
        first = max(gap.start, self.state.position + 1)
        oldest = min(await list_checkpoints(self._bucket, self._keys), default=0)
        is_trimmed = oldest >= gap.stop - 1 and self._base < oldest and self._base > 0
        if await self._load_covering(gap.stop - 1):
            kind, reason = Kind.HISTORY_MISSING, f"{_IS_MISSING}; a checkpoint says what came of it"
        else:
            kind, reason = Kind.SEGMENT_MISSING, _IS_MISSING
        if is_trimmed and kind is Kind.HISTORY_MISSING:
            return  # meanwhile
        missing = range(first, gap.stop)
        for position in missing[:_MISSING_NAMED]:
            self._find(self._keys.segment(position), kind, reason)
        if missing[_MISSING_NAMED:]:
            self._find(self._keys.segment(missing[-1]), kind, f"{reason}, and others before it")

    async def _take(
        self, position: int, segment: Segment | DataError | None, before: tuple[int, Segment] | None
    ) -> tuple[int, Segment] | None:
        """Check a segment and apply it. Return what the next one has to follow, if that is known."""
        key = self._keys.segment(position)
        if segment is None:
            if position > self._base:
                await self._cross(range(position, position + 1))
            return None
        if isinstance(segment, DataError):
            self._find(key, Kind.SEGMENT_DAMAGED, str(segment))
            await self._settle()
            if position > self.state.position:
                await self._load_covering(position)
            return None
        follows = True
        if before is not None and before[0] == position - 1:
            due = before[1].last_sequence + 1
            if segment is EMPTY_SEGMENT:
                segment = replace(segment, first_sequence=due)
            if segment.first_sequence != due:
                follows = False
                reason = f"it begins at sequence {segment.first_sequence}, where {due} is due"
                self._find(key, Kind.SEGMENT_DAMAGED, reason)
        if position > self.state.position:
            await self._apply(position, segment, said=not follows)
        return (position, segment) if segment is not EMPTY_SEGMENT else None

    async def _apply(self, position: int, segment: Segment, *, said: bool) -> None:
        """Apply a segment, and check the checkpoint after it. `said` is whether it was said that it does not follow."""
        state = self.state
        is_next = position == state.position + 1
        try:
            state.apply(position, segment, follows=is_next)
        except DataError as error:
            if self._doubted is not None and await self._believe(position, segment):
                pass
            elif not await self._apply_after_all(position, segment, error, said=said):
                return
        await self._settle()
        while self._ahead and self._ahead[0] < state.position:
            await self._check_alone(self._ahead.popleft())
        if self._ahead and self._ahead[0] == state.position:
            await self._compare(self._ahead.popleft())

    async def _apply_after_all(self, position: int, segment: Segment, error: DataError, *, said: bool) -> bool:
        """Apply a segment that does not follow, as a reader does that takes what is left. Return whether that works."""
        if not said:
            key = self._keys.segment(position)
            self._find(key, Kind.SEGMENT_DAMAGED, f"it does not follow the segments before it: {error}")
        try:
            self.state.apply(position, segment, follows=False)
        except DataError:
            return await self._load_covering(position)
        return True

    async def _believe(self, position: int, segment: Segment) -> bool:
        """Apply a segment to the checkpoint before it, which differs from the log. Return whether it follows that."""
        if not await self._load(position - 1):
            return False
        try:
            self.state.apply(position, segment)
        except DataError:
            return False
        self._doubted = None
        return True

    async def _settle(self) -> None:
        """Say that a checkpoint differs, and mend it: nothing speaks for it."""
        if self._doubted is not None:
            self._found.append(self._doubted)
            self._doubted = None
            if self._mend is not None:
                kept = FolderState(self._kept)
                try:
                    await self._mend(kept)
                finally:
                    kept.close()
                    remove_database(self._kept)

    async def _compare(self, position: int) -> None:
        """Compare a checkpoint with the state at its position."""
        key = self._keys.checkpoint(position)
        try:
            await read_checkpoint(self._bucket, self._keys, position, self._other, check_entries=False)
        except NoSuchKey:
            return
        except DataError as error:
            self._find(key, Kind.CHECKPOINT_DAMAGED, str(error))
            if self._mend is not None:
                await self._mend(self.state)
            return
        found = await asyncio.to_thread(difference, self.state.path, self._other.path)
        if found is None:
            self.covered = position
            return
        self._doubted = Finding(key, f"it does not say what the log says: {found}", Kind.CHECKPOINT_DIFFERS)
        if self._mend is not None:
            remove_database(self._kept)
            await asyncio.to_thread(self.state.write_copy, self._kept)

    async def _check_alone(self, position: int) -> None:
        """Check a checkpoint that cannot be compared."""
        key = self._keys.checkpoint(position)
        try:
            await read_checkpoint(self._bucket, self._keys, position, self._other)
        except NoSuchKey:
            return
        except DataError as error:
            self._find(key, Kind.CHECKPOINT_DAMAGED, str(error))
        else:
            self.covered = max(self.covered, position)

    async def _check_kept(self) -> None:
        """Check the states that are kept beyond the history."""
        for key, (position, _) in sorted((await list_kept(self._bucket, self._keys)).items()):
            try:
                await check_checkpoint(self._bucket, self._keys, position, self.state.path.parent, kept_as=key)
            except NoSuchKey:
                continue
            except DataError as error:
                self._find(key, Kind.CHECKPOINT_DAMAGED, str(error))
