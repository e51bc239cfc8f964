"""Whether a folder's log is sound: every checkpoint, and every segment that is there or should be (docs/format.md)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from untrusted_s3 import limits
from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment, decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments


async def check_log(bucket: Bucket, keys: FolderKeys) -> AsyncIterator[Problem]:
    """What is wrong with the log, each named by its key: a damaged checkpoint or segment, a missing segment, one whose
    sequence numbers do not follow.

    Nothing else may be missing while a gateway cleans up: it deletes old checkpoints first, then segments.
    """
    segments = sorted(await list_segments(bucket, keys))
    checkpoints = sorted(await list_checkpoints(bucket, keys))
    async for problem in _check_checkpoints(bucket, keys, checkpoints):
        yield problem
    base = checkpoints[0] if checkpoints else 0
    last = max([*checkpoints[-1:], *segments[-1:]], default=0)
    for position in sorted(set(range(base + 1, last + 1)).difference(segments)):
        yield Problem(keys.segment(position), "the log segment is missing")
    async for problem in _check_segments(bucket, keys, segments, base):
        yield problem


async def _check_checkpoints(bucket: Bucket, keys: FolderKeys, positions: list[int]) -> AsyncIterator[Problem]:
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        state = FolderState(Path(directory, "state.sqlite"))
        try:
            for position in positions:
                try:
                    await read_checkpoint(bucket, keys, position, state)
                except NoSuchKey:
                    continue  # cleaned up meanwhile
                except DataError as error:
                    yield Problem(keys.checkpoint(position), str(error))
        finally:
            state.close()


async def _check_segments(bucket: Bucket, keys: FolderKeys, positions: list[int], base: int) -> AsyncIterator[Problem]:
    """Those up to `base` may have been cleaned up meanwhile."""
    before: tuple[int, Segment] | None = None
    for begin in range(0, len(positions), limits.SEGMENT_READ_AHEAD):
        batch = positions[begin : begin + limits.SEGMENT_READ_AHEAD]
        read = await asyncio.gather(*(_read(bucket, keys.segment(position)) for position in batch))
        for position, segment in zip(batch, read, strict=True):
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


async def _read(bucket: Bucket, key: str) -> Segment | DataError | None:
    try:
        return decode_segment(await bucket.get(key), key)
    except NoSuchKey:
        return None
    except DataError as error:
        return error
