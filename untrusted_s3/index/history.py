"""A folder's state at a time, from checkpoints and the segments of the log after them. Needs no password.

Times are those of the gateways that wrote the segments, and their clocks may differ (store/format.py, MAX_CLOCK_SKEW).
So the state at a time ends before the first segment that is later.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import BeforeHistory, DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.log_end import is_end
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept

_logger = structlog.get_logger()
_NOBODY = DeviceID(bytes(32))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SETTINGS = LogSettings()


def to_datetime(time_ms: int) -> datetime:
    """Convert milliseconds since 1970 UTC. A time out of datetime's range becomes the first or the last one in it."""
    try:
        return _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return (datetime.max if time_ms > 0 else datetime.min).replace(tzinfo=UTC)


def to_time_ms(time: datetime) -> int:
    """Convert to milliseconds since 1970 UTC, rounded down."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


async def load_newest(bucket: Bucket, keys: FolderKeys, state: FolderState, settings: LogSettings = _SETTINGS) -> None:
    """Bring an empty state up to the end of the log. Raises DataError where the log is damaged, and StoreError."""
    await FolderLog(bucket, keys, state, _NOBODY, settings).load()


async def load_as_of(
    bucket: Bucket, keys: FolderKeys, state: FolderState, time_ms: int, settings: LogSettings = _SETTINGS
) -> None:
    """Bring an empty state to what the folder was at a time, in milliseconds since 1970 UTC.

    Before the history there may be states that are kept; then it is the last one of these before that time. Raises
    BeforeHistory, DataError where the log is damaged, and StoreError.
    """
    reader = SegmentReader(bucket, keys, settings)
    oldest = None
    for position in sorted(await list_checkpoints(bucket, keys), reverse=True):
        try:
            segment = await _last_written(reader, position)
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
            _logger.warning("checkpoint unreadable", position=position, error=str(error))
    else:
        first = (await reader.read(1)).segment
        if first is None or first.time_ms > time_ms:
            if await _load_kept(bucket, keys, state, time_ms):
                return
            raise _before_history(first.time_ms if first is not None else oldest)
        if state.position:
            raise DataError(f"segments of the log before {keys.segment(state.position + 1)} are missing")
    async with contextlib.aclosing(segments_after(bucket, keys, state.position, settings)) as segments:
        async for position, segment in segments:
            if segment.time_ms > time_ms:
                return
            state.apply(position, segment)


async def _load_kept(bucket: Bucket, keys: FolderKeys, state: FolderState, time_ms: int) -> bool:
    """Bring a state to the last one that is kept beyond the history and not later than a time.

    Return whether there is one. Raises StoreError.
    """
    kept = await list_kept(bucket, keys)
    for key, (position, _) in sorted(kept.items(), reverse=True):
        try:
            await read_checkpoint(bucket, keys, position, state, kept_as=key)
        except (NoSuchKey, DataError) as error:
            _logger.warning("checkpoint unreadable", position=position, error=str(error))
            continue
        if state.time_ms <= time_ms:
            then = to_datetime(state.time_ms).isoformat(timespec="seconds")
            _logger.warning("this time is before the history: an earlier state that is kept", time=then)
            return True
    state.clear()
    return False


def _before_history(oldest_ms: int | None) -> BeforeHistory:
    if oldest_ms is None:
        return BeforeHistory("the folder has no history: nothing was ever stored in it")
    oldest = to_datetime(oldest_ms + 999).astimezone().replace(microsecond=0)
    return BeforeHistory(f"that is before the stored history, which begins at {oldest.isoformat()}")


async def segments_after(
    bucket: Bucket, keys: FolderKeys, position: int, settings: LogSettings = _SETTINGS
) -> AsyncGenerator[tuple[int, Segment], None]:
    """Read all segments after a position, each with its own position.

    Raises DataError where one is damaged or missing, and StoreError.
    """
    reader = SegmentReader(bucket, keys, settings)
    async with contextlib.aclosing(reader.read_after(position)) as segments:
        async for found in segments:
            if found.segment is not None:
                yield found.position, found.segment
            elif max(await list_checkpoints(bucket, keys), default=0) >= found.position:
                raise DataError(f"{keys.segment(found.position)} is missing; if it was deleted meanwhile, try again")
            else:
                await is_end(bucket, keys, found.position)  # raises where segments are missing


async def _last_written(reader: SegmentReader, position: int) -> Segment | None:
    """Return the segment at a position or, where that has no bytes and so no time, the one before it."""
    segment = (await reader.read(position)).segment
    while segment is EMPTY_SEGMENT and position > 1:
        position -= 1
        segment = (await reader.read(position)).segment
    return segment
