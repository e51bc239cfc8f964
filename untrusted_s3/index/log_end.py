"""The end of a folder's log: whether a store has lost segments there (index/log.py, rule 6)."""

from __future__ import annotations

from collections.abc import Iterable

from untrusted_s3.errors import DataError, LogWentBack, SegmentsMissing
from untrusted_s3.index.segment import EMPTY_SEGMENT
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
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
    missing = _ranges(sorted(set(range(position, max(later))).difference(later)))
    raise SegmentsMissing(f"the log below {keys.segments} has no segment {missing}, though it goes on to {max(later)}")


async def check_last(bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState) -> None:
    """Check that the store has the last segment that a state has applied, or a checkpoint that covers it.

    Raises LogWentBack, DataError if the segment is damaged, and StoreError.
    """
    position = state.position
    if position == 0:
        return
    try:
        segment = (await reader.read(position)).segment
        if segment is EMPTY_SEGMENT:
            return  # it says nothing that could be compared
        if segment is not None and (segment.last_sequence, segment.time_ms) == (state.sequence, state.time_ms):
            return
        error: DataError = LogWentBack(
            f"the store has lost the end of the log: {keys.segment(position)}, which this gateway knows, is"
            f" {'gone' if segment is None else 'another one now'}. The store was put back to an earlier time, or has"
            " lost data. Nothing is written to this log until the lost segments are back; this version does not repair"
            " it by itself"
        )
    except DataError as damage:
        segment, error = None, damage
    if segment is None and max(await list_checkpoints(bucket, keys), default=0) >= position:
        return
    raise error


def _ranges(numbers: Iterable[int]) -> str:
    """Return numbers in rising order as a text such as "3, 5 to 9"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in ranges[:_MOST_RANGES]]
    return ", ".join(texts) + (", …" if len(ranges) > _MOST_RANGES else "")


_MOST_RANGES = 10
