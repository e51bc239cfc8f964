"""A folder's state at a time, from checkpoints and the segments of the log after them.

Times are those of the gateways that wrote the segments. Their clocks may differ by limits.MAX_CLOCK_SKEW: the state at
a time ends before the first segment that is later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, NoSuchKey, UsageError
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment, decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints

_logger = structlog.get_logger()
_NOBODY = DeviceID(bytes(32))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(time_ms: int) -> datetime:
    """From milliseconds since 1970 UTC, in UTC. What no calendar can say becomes the first or the last moment."""
    try:
        return _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return (datetime.max if time_ms > 0 else datetime.min).replace(tzinfo=UTC)


def to_time_ms(time: datetime) -> int:
    """Milliseconds since 1970 UTC, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


async def load_newest(bucket: Bucket, keys: FolderKeys, state: FolderState) -> None:
    """Brings an empty state up to the end of the log. Raises DataError where the log is damaged."""
    await FolderLog(bucket, keys, state, _NOBODY).load()


async def load_as_of(bucket: Bucket, keys: FolderKeys, state: FolderState, time_ms: int) -> None:
    """Brings an empty state to what the folder was at a time.

    Raises UsageError where that is before the history, and DataError where the log is damaged.
    """
    oldest = None
    for position in sorted(await list_checkpoints(bucket, keys), reverse=True):
        try:
            segment = await _last_written(bucket, keys, position)
            if segment is None:
                await read_checkpoint(bucket, keys, position, state)
                written = state.time_ms
            else:
                written = segment.time_ms
            if written > time_ms:
                oldest = written
                continue
            if segment is not None:
                await read_checkpoint(bucket, keys, position, state)
            break
        except (NoSuchKey, DataError) as error:
            _logger.warning("a checkpoint cannot be read, trying an older one", position=position, error=str(error))
    else:
        first = await _read(bucket, keys, 1)
        if first is None or first.time_ms > time_ms:
            oldest = first.time_ms if first is not None else oldest
            raise UsageError(_before_the_history(oldest))
        if state.position:
            raise DataError(f"segments of the log before {keys.segment(state.position + 1)} are missing")
    async for position, segment in segments_after(bucket, keys, state.position):
        if segment.time_ms > time_ms:
            return
        state.apply(position, segment)


def _before_the_history(oldest_ms: int | None) -> str:
    if oldest_ms is None:
        return "the folder has no history: nothing was ever stored in it"
    oldest = to_datetime(oldest_ms + 999).astimezone().replace(microsecond=0)
    return f"that is before the history that the store has, which begins at {oldest.isoformat()}"


async def segments_after(bucket: Bucket, keys: FolderKeys, position: int) -> AsyncIterator[tuple[int, Segment]]:
    """All segments after a position, each with its own. Raises DataError where one is damaged or missing."""
    while True:
        ahead = range(position + 1, position + 1 + limits.SEGMENT_READ_AHEAD)
        for segment in await asyncio.gather(*(_read(bucket, keys, number) for number in ahead)):
            if segment is None:
                if max(await list_checkpoints(bucket, keys), default=0) > position:
                    raise DataError(f"{keys.segment(position + 1)} is missing: cleaned up meanwhile? Try again")
                return
            position += 1
            yield position, segment


async def _last_written(bucket: Bucket, keys: FolderKeys, position: int) -> Segment | None:
    """The segment at a position or, where that has no bytes and so no time, the one before."""
    segment = await _read(bucket, keys, position)
    while segment is EMPTY_SEGMENT and position > 1:
        position -= 1
        segment = await _read(bucket, keys, position)
    return segment


async def _read(bucket: Bucket, keys: FolderKeys, position: int) -> Segment | None:
    key = keys.segment(position)
    try:
        return decode_segment(await bucket.get(key), key)
    except NoSuchKey:
        return None
