"""Loading what a store still has of a log that has lost segments or checkpoints (index/log.py, rule 7)."""

from __future__ import annotations

import contextlib

import structlog

from untrusted_s3.errors import DataError, NoSuchKey, UnknownFormat
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.log_end import ranges
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

_logger = structlog.get_logger()


async def salvage(
    bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState, *, check_entries: bool
) -> list[str]:
    """Replace the state by what the store has: the newest readable checkpoint, and every readable segment after it.

    Segments behind a gap count, for what they say is true; what the missing ones said is not known. The position of the
    state is then that of the last segment, readable or not. Return what is lost, a text for each gap; nothing if there
    is no gap. Raises UnknownFormat, for a newer program may read what this one cannot, and StoreError.
    """
    state.clear()
    checkpoints = sorted(await list_checkpoints(bucket, keys), reverse=True)
    for position in checkpoints:
        try:
            await read_checkpoint(bucket, keys, position, state, check_entries=check_entries)
            break
        except UnknownFormat:
            raise
        except (NoSuchKey, DataError) as error:
            _logger.error("checkpoint unreadable", position=position, error=str(error))
    listed = sorted(await list_segments(bucket, keys, after=state.position))
    losses: list[str] = []
    async with contextlib.aclosing(reader.read_each(listed)) as segments:
        async for position, segment in segments:
            if isinstance(segment, UnknownFormat):
                raise segment
            if segment is None or isinstance(segment, DataError):
                _logger.error("log segment unreadable", position=position, error=str(segment or "it is gone"))
                continue
            first, sequence = state.position + 1, state.sequence
            try:
                if position == first:
                    state.apply(position, segment)
                    continue
            except DataError:
                pass  # another history than that of the segments before it
            try:
                state.apply(position, segment, follows=False)
            except DataError as error:
                _logger.error("log segment contradicts those before it", position=position, error=str(error))
                continue
            losses.append(_loss(first, position - 1, segment.first_sequence - 1 - sequence))
    last = max([*listed, *checkpoints], default=0)
    if state.position < last:
        losses.append(_loss(state.position + 1, last, 0))
        state.skip(last)
    return losses


def _loss(first: int, last: int, entries: int) -> str:
    if last < first:
        return f"segments before {first} that the one there continues"
    known = f" with {entries} entries" if entries else ""
    return f"segment{'s' if last > first else ''} {ranges(range(first, last + 1))}{known}"
