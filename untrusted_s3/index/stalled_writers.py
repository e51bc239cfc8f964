"""When a damaged log segment may be deleted: not while somebody could still write its position.

A writer that has stalled may have seen that the position is free before the segment was written. Its PUT succeeds if
the segment is gone by then, though later segments or a checkpoint have gone on without it
(docs/adr/0002-appends-expire.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from untrusted_s3.index.rules import LOG_RULES
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import MAX_SEGMENTS, list_checkpoints, up_to

# A PUT is signed within this time after the look, is valid as long, and clocks may be off by a part of it.
_APPENDS_END: Final = 3 * LOG_RULES.append_lifetime


@dataclass(frozen=True, slots=True)
class StalledWriters:
    """What one look at a log says about writers that stall.

    Attributes:
        ages: The seconds since each of the segments in question was written, by position.
        last: The position of the last segment of the log.
        checkpoints: The ages of the checkpoints by position.
    """

    ages: Mapping[int, float]
    last: int
    checkpoints: Mapping[int, float]

    @classmethod
    async def look(cls, bucket: Bucket, keys: FolderKeys, positions: Collection[int]) -> StalledWriters:
        """List what tells about these positions, whose segments are damaged. Raises StoreError."""
        wanted = set(positions)
        if not wanted:
            return cls({}, 0, {})
        ages, last = {}, 0
        listed = bucket.list(keys.segments, keys.segment(min(wanted) - 1))
        async for item in up_to(MAX_SEGMENTS, listed, keys.segments):
            position = keys.segment_position(item.key)
            last = max(last, position or 0)
            if position in wanted:
                ages[position] = item.age
        checkpoints = {position: item.age for position, item in (await list_checkpoints(bucket, keys)).items()}
        return cls(ages, last, checkpoints)

    def may_write(self, position: int) -> str | None:
        """Return why somebody could write a position if the segment there was deleted now. None if nobody could.

        It is only about who looked before the segment was written.
        """
        if self.ages.get(position, math.inf) >= _APPENDS_END:
            return None
        minutes = _APPENDS_END // 60
        return f"a gateway that stalls may be about to write there, until {minutes} minutes after it was written"

    def may_take_for_free(self, position: int, covered: int) -> str | None:
        """Return why somebody could write a position if the segment there, which checkpoint `covered` covers, was
        deleted.

        None if nobody could. A gateway that has not looked for a while takes the first missing segment for the end of
        the log if none follows; after half a day it begins at the newest checkpoint.
        """
        reason = self.may_write(position)
        if reason is not None or position < self.last:
            return reason
        if self.checkpoints.get(covered, 0.0) >= LOG_RULES.retention:
            return None
        return "it is the last one of the log, until the log has gone on, or a day after the checkpoint"
