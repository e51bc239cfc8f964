"""The end of a folder's log: whether a store has lost segments there (index/log.py, rule 6)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from untrusted_s3.errors import DataError, LogWentBack, SegmentsMissing
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState, short_append_id
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments


async def is_end(bucket: Bucket, keys: FolderKeys, position: int) -> bool:
    """Return whether the log ends before a position at which a reader has found no segment.

    False when another gateway has written the segment meanwhile. Raises SegmentsMissing, which names the missing ones,
    when there are only later segments, and StoreError.
    """
    later = await list_segments(bucket, keys, after=position - 1)
    if not later:
        return True
    # A listing is not of one moment: it may have a segment without the one written before it.
    if position in later or await bucket.size(keys.segment(position)) is not None:
        return False
    missing = ranges(later.gaps(position, later.last))
    raise SegmentsMissing(f"the log below {keys.segments} has no segment {missing}, though it goes on to {later.last}")


async def missing_between(bucket: Bucket, keys: FolderKeys, first: int, last: int) -> list[range]:
    """Return the ranges from `first` to `last` in which there is no segment, and that no checkpoint covers.

    Raises StoreError.
    """
    listed = await list_segments(bucket, keys, after=first - 1)
    missing = listed.gaps(first, last)
    if missing:
        covered = max(await list_checkpoints(bucket, keys), default=0)
        missing = listed.gaps(max(first, covered + 1), last)
    return missing


class LastSegment(Enum):
    """What the store has in the place of the last segment that a state has applied."""

    SAME = "the same segment"
    COVERED = "no segment, and a checkpoint that covers it"
    GONE = "no segment"
    ANOTHER = "another segment"


async def compare_last(bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState) -> LastSegment:
    """Compare the last segment that a state has applied with what the store has in its place.

    GONE and ANOTHER mean that the store has lost the end of the log since. With ANOTHER, somebody has gone on at an
    earlier position. A segment of no bytes is the same as any other. Raises DataError if the segment is damaged and no
    checkpoint covers it, and StoreError.
    """
    position = state.position
    if position == 0:
        return LastSegment.SAME
    damage: DataError | None = None
    try:
        segment = (await reader.read(position)).segment
    except DataError as error:
        segment, damage = None, error
    if segment is not None:
        return LastSegment.SAME if segment is EMPTY_SEGMENT or _is_last(segment, state) else LastSegment.ANOTHER
    if max(await list_checkpoints(bucket, keys), default=0) >= position:
        return LastSegment.COVERED
    if damage is not None:
        raise damage
    return LastSegment.GONE


async def check_last(bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState) -> LastSegment:
    """Check that the store has not lost the last segment that a state has applied. Return SAME or COVERED.

    Raises LogWentBack, DataError if the segment is damaged, and StoreError.
    """
    found = await compare_last(bucket, keys, reader, state)
    if found in (LastSegment.SAME, LastSegment.COVERED):
        return found
    raise LogWentBack(
        f"the store has lost the end of the log: {keys.segment(state.position)}, which this gateway knows, is"
        f" {'gone' if found is LastSegment.GONE else 'another one now'}. The store was put back to an earlier time, or"
        " has lost data"
    )


def _is_last(segment: Segment, state: FolderState) -> bool:
    if (segment.last_sequence, segment.time_ms) != (state.sequence, state.time_ms):
        return False
    return state.append_id in (0, short_append_id(segment))


def ranges(found: Sequence[range]) -> str:
    """Return ranges as a text such as "3, 5 to 9"."""
    texts = [str(one[0]) if one[0] == one[-1] else f"{one[0]} to {one[-1]}" for one in found[:_MOST_RANGES]]
    return ", ".join(texts) + (", …" if len(found) > _MOST_RANGES else "")


_MOST_RANGES = 10
