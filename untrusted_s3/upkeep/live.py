"""The objects that a folder's log names: what `--as-of` can reach, and what the folder is now."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from untrusted_s3.errors import DataError, LogTrimmed, NoSuchKey, SegmentsMissing
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.index.log_end import ranges
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import TrimPlan
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import digest
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments
from untrusted_s3.store.positions import Positions

_SETTINGS = LogSettings()
_CACHE_KIB = 32 * 1024
_SCHEMA = "PRAGMA journal_mode = OFF; CREATE TABLE objects (digest INTEGER PRIMARY KEY)"
_TRIES = 3
_AT_ONCE = 2000

# Given the ages of a folder's checkpoints by their positions, returns what is left out.
Leaving = Callable[[dict[int, float]], Awaitable[TrimPlan]]


async def nothing_leaves(ages: dict[int, float]) -> TrimPlan:
    """Leave out nothing."""
    return TrimPlan(0, [], {}, [])


class Named(Protocol):
    """An object of a folder."""

    @property
    def name_hash(self) -> bytes:
        """The hash of the file's encrypted name."""

    @property
    def object_name(self) -> str:
        """The name of the object."""


class ObjectSet:
    """A set of objects, in a temporary file of which a bounded part is in memory.

    64 bits stand for each. So an object may rarely seem to be there that is not.
    """

    def __init__(self) -> None:
        # Used in one thread at a time.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Delete the set."""
        self._connection.close()

    def add(self, objects: Iterable[Named]) -> None:
        """Add objects."""
        rows = ((digest(named.name_hash, named.object_name),) for named in objects)
        self._connection.execute("BEGIN")
        try:
            self._connection.executemany("INSERT OR IGNORE INTO objects VALUES (?)", rows)
        finally:
            self._connection.execute("COMMIT")

    def has(self, name_hash: bytes, object_name: str) -> bool:
        """Return whether an object is in the set."""
        found = self._connection.execute("SELECT 1 FROM objects WHERE digest = ?", (digest(name_hash, object_name),))
        return found.fetchone() is not None


async def load_live(
    bucket: Bucket,
    keys: FolderKeys,
    live: ObjectSet,
    *,
    leaving: Leaving = nothing_leaves,
    settings: LogSettings = _SETTINGS,
    directory: Path | None = None,
) -> None:
    """Add all objects that the folder's log names, in any checkpoint or segment that the store has.

    `leaving` says which checkpoints and segments are left out, because they are about to be cleaned up. Checkpoints
    are loaded to temporary files in `directory`. What is written meanwhile may be left out: by rule 1 of
    store/garbage.py, it names no object that was a candidate long enough to be deleted.

    Raises SegmentsMissing or another DataError if a part of the log is missing or damaged: then nobody knows what it
    names. Raises StoreError.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(LogTrimmed):
            await _load(bucket, keys, live, leaving, settings, directory)
            return
    await _load(bucket, keys, live, leaving, settings, directory)


async def _load(
    bucket: Bucket,
    keys: FolderKeys,
    live: ObjectSet,
    leaving: Leaving,
    settings: LogSettings,
    directory: Path | None,
) -> None:
    # In this order: where a segment is missing, a checkpoint that covers it was there before.
    segments = await list_segments(bucket, keys)
    ages = {position: item.age for position, item in (await list_checkpoints(bucket, keys)).items()}
    plan = await leaving(ages)
    base = plan.base
    # One that is kept beyond the history is at its new place afterwards.
    checkpoints = sorted(ages.keys() - set(plan.surplus) | plan.to_keep.keys())
    for position in needed_checkpoints(checkpoints, segments, base):
        await _add_checkpoint(bucket, keys, position, live, directory)
    for key, (position, _) in (await list_kept(bucket, keys)).items():
        if key not in plan.to_drop:
            await _add_checkpoint(bucket, keys, position, live, directory, kept_as=key)
    reader = SegmentReader(bucket, keys, settings)
    async with contextlib.aclosing(reader.read_each(one for one in segments if one > base)) as found:
        async for position, segment in found:
            if segment is None:
                raise LogTrimmed(f"{keys.segment(position)} was deleted meanwhile")
            if isinstance(segment, DataError):
                raise segment
            _add_segment(segment, live)
    newest = max(checkpoints, default=0)
    if missing := segments.gaps(newest + 1, segments.last):
        raise SegmentsMissing(f"the log below {keys.segments} has no segment {ranges(missing)}")


def needed_checkpoints(checkpoints: list[int], segments: Positions, base: int = 0) -> list[int]:
    """Return the checkpoints that say more than the segments after `base` and the checkpoints before them do."""
    needed, before = [], 0
    for position in checkpoints:
        if position <= base or segments.gaps(before + 1, position):
            needed.append(position)
        before = position
    return needed


def _add_segment(segment: Segment, live: ObjectSet) -> None:
    named = [NamedObject.of(version) for entry in segment.entries for version in entry.versions]
    live.add(filter(None, named))


async def _add_checkpoint(
    bucket: Bucket, keys: FolderKeys, position: int, live: ObjectSet, parent: Path | None, *, kept_as: str | None = None
) -> None:
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-", dir=parent) as directory:
        state = FolderState(Path(directory, "state.sqlite"))
        try:
            try:
                await read_checkpoint(bucket, keys, position, state, check_entries=False, kept_as=kept_as)
            except NoSuchKey as error:
                raise LogTrimmed(f"{kept_as or keys.checkpoint(position)} was deleted meanwhile") from error
            objects = state.objects()
            while some := list(itertools.islice(objects, _AT_ONCE)):
                live.add(some)
                await asyncio.sleep(0)
        finally:
            state.close()
