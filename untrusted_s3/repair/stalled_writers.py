"""When a damaged log segment may be deleted: not while somebody could still write its position.

A writer that has stalled may have seen that the position is free before the segment was written. Its PUT succeeds if
the segment is gone by then, though later segments or a checkpoint have gone on without it
(docs/adr/0002-appends-expire.md).
"""

from __future__ import annotations

import math
from typing import Final

from untrusted_s3.index.rules import LOG_RULES
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

# A PUT is signed within this time after the look, is valid as long, and clocks may be off by a part of it.
_APPENDS_END: Final = 3 * LOG_RULES.append_lifetime


async def may_be_written(bucket: Bucket, keys: FolderKeys, position: int) -> str | None:
    """Return why somebody could write a position if the segment there was deleted now. None if nobody could.

    It is only about who looked before the segment was written. Raises StoreError.
    """
    key = keys.segment(position)
    ages = [item.age async for item in bucket.list(key) if item.key == key]
    if min(ages, default=math.inf) >= _APPENDS_END:
        return None
    minutes = _APPENDS_END // 60
    return f"a gateway that stalls may be about to write there: repeat this {minutes} minutes after it was written"


async def may_be_taken_for_free(bucket: Bucket, keys: FolderKeys, position: int, covered: int) -> str | None:
    """Return why somebody could write a position if the segment there, which checkpoint `covered` covers, was deleted.

    None if nobody could. A gateway that has not looked for a while takes the first missing segment for the end of the
    log if none follows; after half a day it begins at the newest checkpoint. Raises StoreError.
    """
    reason = await may_be_written(bucket, keys, position)
    if reason is not None or await list_segments(bucket, keys, after=position):
        return reason
    checkpoint = (await list_checkpoints(bucket, keys)).get(covered)
    if checkpoint is not None and checkpoint.age >= LOG_RULES.retention:
        return None
    return "it is the last one of the log: repeat this when the log has gone on, or a day after the checkpoint"
