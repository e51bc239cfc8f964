"""Trimming: what keeps a folder's checkpoints and log bounded while changes go on (docs/format.md, "Cleaning up").

The *base* is the newest checkpoint that is older than the history to be kept. What the folder was at any time since can
be told from the base, the segments after it and the checkpoints between. Everything before the base goes.

Of the checkpoints after the base those stay that lie far enough apart: in each age bucket of 0-1, 1-2, 2-4, 4-8, ...
days the oldest one, so that there always is one that grows old enough to be the next base; and the newest two.

The rules of index/log.py hold because a base is older than SEGMENT_RETENTION, the newest checkpoint never goes, and
what was old enough to go when it was listed is so for ever. Several gateways may trim at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from untrusted_s3 import limits
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

_DAY = 86_400.0
_NEWEST_KEPT = 2


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many objects a trim has deleted."""

    checkpoints: int = 0
    segments: int = 0


async def trim(
    bucket: Bucket, keys: FolderKeys, history: float, clock: Callable[[], float] = time.monotonic
) -> Trimmed:
    """Deletes what `history` (seconds; never less than SEGMENT_RETENTION) does not need. Raises StoreError; then some
    of it is deleted, and another trim goes on. `clock` gives seconds since any fixed point."""
    began = clock()
    checkpoints = {position: item.age for position, item in (await list_checkpoints(bucket, keys)).items()}
    base = find_base(checkpoints, max(history, limits.SEGMENT_RETENTION))
    surplus = surplus_checkpoints(checkpoints, base)
    deleted = 0
    for position in surplus:
        # A trimmer that has stalled must not delete what has become another one's base.
        if clock() - began > limits.TRIM_LIFETIME:
            return Trimmed(deleted)
        await bucket.delete(keys.checkpoint(position))
        deleted += 1
    covered: list[int] = []
    if base:
        covered = sorted(position for position in await list_segments(bucket, keys) if position <= base)
    for start in range(0, len(covered), limits.CONCURRENT_DELETES):
        batch = covered[start : start + limits.CONCURRENT_DELETES]
        await asyncio.gather(*(bucket.delete(keys.segment(position)) for position in batch))
    return Trimmed(deleted, len(covered))


def find_base(checkpoints: Mapping[int, float], history: float) -> int:
    """The position of the newest checkpoint whose age is above `history`, 0 for none. `checkpoints` has ages in seconds
    by positions."""
    return max((position for position, age in checkpoints.items() if age > history), default=0)


def surplus_checkpoints(checkpoints: Mapping[int, float], base: int) -> list[int]:
    """The positions of checkpoints that may go, rising."""
    after = sorted(position for position in checkpoints if position > base)
    oldest = {_bucket(checkpoints[position]): position for position in reversed(after)}
    kept = {base, *oldest.values(), *after[-_NEWEST_KEPT:]}
    return sorted(checkpoints.keys() - kept)


def _bucket(age: float) -> int:
    """0 for an age below a day, 1 below two, 2 below four, 3 below eight, ..."""
    return int(max(age, 0.0) / _DAY).bit_length()
