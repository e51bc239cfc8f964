"""Loading what a store still has of a log that has lost segments or checkpoints (index/log.py, rule 7)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from untrusted_s3.errors import DataError, NoSuchKey, UnknownFormat
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.strange_segments import keep_any, keep_segment
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import FAR_POSITION, MAX_FAR_GAP
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments
from untrusted_s3.store.losses import LostSegments
from untrusted_s3.store.positions import Positions

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was not there, or could not be read.

    Attributes:
        losses: What is lost, for each gap; nothing if there is no gap.
        kept: The keys of copies of the objects that are no part of the log, by their own keys.
    """

    losses: tuple[LostSegments, ...]
    kept: Mapping[str, str]


async def salvage(
    bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState, *, check_entries: bool
) -> Salvaged:
    """Replace the state by what the store has: the newest readable checkpoint, and every readable segment after it.

    Segments behind a gap count, for what they say is true; what the missing ones said is not known. The position of the
    state is then that of the last segment, readable or not. Segments that are damaged or contradict those before them
    are copied to keys of their own, and so is what lies at a position that no log reaches. Raises UnknownFormat, for a
    newer program may read what this one cannot, and StoreError.
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
    listed, far = without_far(await list_segments(bucket, keys, after=state.position), state.position)
    losses: list[LostSegments] = []
    kept: dict[str, str] = {}

    async def keep(position: int, *, is_readable: bool) -> None:
        copy = await keep_segment(bucket, keys, position, is_readable=is_readable)
        if copy is not None:
            kept[keys.segment(position)] = copy

    async with contextlib.aclosing(reader.read_each(listed)) as segments:
        async for position, segment in segments:
            if isinstance(segment, UnknownFormat):
                raise segment
            if segment is None or isinstance(segment, DataError):
                _logger.error("log segment unreadable", position=position, error=str(segment or "it is gone"))
                if segment is not None:
                    await keep(position, is_readable=False)
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
                await keep(position, is_readable=True)
                continue
            losses.append(LostSegments(first, position - 1, sequence, segment.first_sequence - 1 - sequence))
    reached = max(listed.last, state.position)
    near = [position for position in checkpoints if is_near(position, reached)]
    strangers = [(keys.segment(position), position) for position in far]
    strangers += [(keys.checkpoint(position), position) for position in checkpoints if position not in near]
    for key, position in strangers:
        _logger.error("key at a position that no log reaches", key=key)
        copy = await keep_any(bucket, keys, key, position)
        if copy is not None:
            kept[key] = copy
    last = max(listed.last, *near[:1], 0)
    if state.position < last:
        losses.append(LostSegments(state.position + 1, last, state.sequence, 0))
        state.skip(last)
    return Salvaged(tuple(losses), kept)


def without_far(listed: Positions, after: int) -> tuple[Positions, list[int]]:
    """Return the positions that can be those of a log that goes on after a position, and the others.

    Anybody who can write to the bucket can make a key at any position, and no log goes on behind the highest one.
    """
    near: list[range] = []
    far: list[int] = []
    for one in listed.ranges:
        if not far and is_near(one.start, after):
            near.append(one)
            after = one[-1]
        else:
            far.extend(one)
    return Positions(*near), far


def is_near(position: int, after: int) -> bool:
    """Return whether there can be a segment or a checkpoint at a position if there is one at `after`."""
    return position <= FAR_POSITION or position <= after + MAX_FAR_GAP
