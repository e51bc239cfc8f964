"""Checks of a folder's log: every checkpoint, and every segment that exists or should (docs/format.md)."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.problem import Problem
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

_SETTINGS = LogSettings()
# How many missing segments of a gap are named.
_MISSING_NAMED = 1000


async def check_log(bucket: Bucket, keys: FolderKeys, settings: LogSettings = _SETTINGS) -> AsyncIterator[Problem]:
    """Yield what is wrong with the log, each problem named by its key: a damaged checkpoint or segment, a missing
    segment, a segment whose sequence numbers do not follow those before.

    A gateway may trim the log meanwhile: it deletes old checkpoints first, then segments. Raises StoreError.
    """
    segments = await list_segments(bucket, keys)
    checkpoints = sorted(await list_checkpoints(bucket, keys))
    async for problem in _check_checkpoints(bucket, keys, checkpoints):
        yield problem
    base = checkpoints[0] if checkpoints else 0
    last = max(segments.last, *checkpoints[-1:], 0)
    for gap in segments.gaps(base + 1, last):
        for position in gap[:_MISSING_NAMED]:
            yield Problem(keys.segment(position), "the log segment is missing")
        if gap[_MISSING_NAMED:]:
            yield Problem(keys.segment(gap[-1]), "the log segment is missing, and others before it")
    async for problem in _check_segments(SegmentReader(bucket, keys, settings), keys, segments, base):
        yield problem


async def _check_checkpoints(bucket: Bucket, keys: FolderKeys, positions: list[int]) -> AsyncIterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        state = FolderState(Path(directory, "state.sqlite"))
        try:
            for position in positions:
                try:
                    await read_checkpoint(bucket, keys, position, state)
                except NoSuchKey:
                    continue  # trimmed meanwhile
                except DataError as error:
                    yield Problem(keys.checkpoint(position), str(error))
        finally:
            state.close()


async def _check_segments(
    reader: SegmentReader, keys: FolderKeys, positions: Iterable[int], base: int
) -> AsyncIterator[Problem]:
    """Check segments. Those up to `base` may be trimmed meanwhile."""
    before: tuple[int, Segment] | None = None
    async with contextlib.aclosing(reader.read_each(positions)) as segments:
        async for position, segment in segments:
            key = keys.segment(position)
            if isinstance(segment, DataError):
                yield Problem(key, str(segment))
            elif segment is None:
                if position > base:
                    yield Problem(key, "the log segment is missing")
            else:
                if before is not None and before[0] == position - 1:
                    due = before[1].last_sequence + 1
                    if segment is EMPTY_SEGMENT:
                        segment = replace(segment, first_sequence=due)
                    if segment.first_sequence != due:
                        yield Problem(key, f"it begins at sequence {segment.first_sequence}, where {due} is due")
                before = (position, segment) if segment is not EMPTY_SEGMENT else None
