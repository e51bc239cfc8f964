"""Trimming: deleting checkpoints and segments, so that a log stays bounded while changes go on (docs/format.md,
"Cleaning up").

The *base* is the newest checkpoint that is older than the history to be kept. The base, the segments after it and the
checkpoints after it tell what the folder was at any time since. Everything before the base is deleted.

Of the checkpoints after the base two kinds are kept: in each age bucket of 0-1, 1-2, 2-4, 4-8, ... days the oldest one,
so that there is always one that grows old enough to become the base; and the newest two.

Before anything is deleted, the base is loaded and checked. If it is damaged, an older one takes its place. So no
damaged checkpoint ever stands for segments that are gone.

The rules of index/log.py hold, for a base is older than SEGMENT_RETENTION, the newest checkpoint is never deleted, and
what was old enough to be deleted when it was listed stays so. Several gateways may trim at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import check_checkpoint, keep_checkpoint
from untrusted_s3.index.rules import LOG_RULES, LogRules
from untrusted_s3.index.strange_segments import remove_copied
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import MAX_POSITION
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments
from untrusted_s3.store.positions import Positions
from untrusted_s3.store.retention import KeptRules
from untrusted_s3.units import DAY

_NEWEST_KEPT = 2
_SETTINGS = LogSettings()
_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many objects a trim has deleted, and how many checkpoints it has kept beyond the history."""

    checkpoints: int = 0
    segments: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class TrimPlan:
    """What a trim deletes and keeps.

    Attributes:
        base: The position of the base; 0 for none. The segments up to it are deleted.
        surplus: The positions of the checkpoints to delete, in ascending order.
        to_keep: Those of them that are written once more before that, with the keys.
        to_drop: The keys of checkpoints that were kept beyond the history and are not wanted any more.
    """

    base: int
    surplus: list[int]
    to_keep: dict[int, str]
    to_drop: list[str]


async def trim(
    bucket: Bucket,
    keys: FolderKeys,
    history: float,
    *,
    known: int = MAX_POSITION,
    settings: LogSettings = _SETTINGS,
    rules: LogRules = LOG_RULES,
    clock: Callable[[], float] = time.monotonic,
    directory: Path | None = None,
    keep: KeptRules | None = None,
) -> Trimmed:
    """Delete the checkpoints and segments that a history of `history` seconds does not need, and damaged segments of
    which there are copies.

    Checkpoints behind the position `known` are left alone: where the log does not reach, they may be anything. A
    shorter history than `rules.retention` counts as that. `clock` gives seconds since any fixed point. The base is
    loaded to a temporary file in `directory`. `keep` says which states are kept beyond the history; None leaves what is
    kept alone. Raises StoreError; then some of them are deleted, and the next trim goes on.
    """
    began = clock()
    listed = await list_checkpoints(bucket, keys)
    checkpoints = {position: item.age for position, item in listed.items() if position <= known}
    history = max(history, rules.retention)
    segments_listed = await list_segments(bucket, keys)
    await remove_copied(bucket, keys, segments_listed, max(checkpoints, default=0))
    base = find_base(checkpoints, history)
    surplus = surplus_checkpoints(checkpoints, base)
    while base and (surplus or _first(segments_listed) <= base):
        try:
            await check_checkpoint(bucket, keys, base, directory)
            break
        except NoSuchKey:
            return Trimmed()  # another trimmer has a later base
        except DataError as error:
            _logger.error("checkpoint unreadable", position=base, error=str(error))
        del checkpoints[base]
        base = find_base(checkpoints, history)
        surplus = surplus_checkpoints(checkpoints, base)
    plan = await plan_trim(bucket, keys, checkpoints, history, keep)
    kept = 0
    for position, key in plan.to_keep.items():
        if clock() - began > rules.trim_lifetime:
            return Trimmed(kept=kept)
        try:
            await keep_checkpoint(bucket, keys, position, key, directory)
            kept += 1
        except NoSuchKey:
            continue  # another trimmer has kept and deleted it
        except DataError as error:
            _logger.error("checkpoint unreadable", position=position, error=str(error))
    deleted = 0
    for key in plan.to_drop:
        await bucket.delete(key, lifetime=rules.append_lifetime)
        deleted += 1
    for position in surplus:
        # A checkpoint that was surplus may become the base of another trimmer, so a stalled one must not go on.
        if clock() - began > rules.trim_lifetime:
            return Trimmed(deleted, kept=kept)
        await bucket.delete(keys.checkpoint(position))
        deleted += 1
    if not base:
        return Trimmed(deleted, kept=kept)
    covered = itertools.takewhile(base.__ge__, segments_listed)
    segments = 0
    while batch := list(itertools.islice(covered, settings.concurrent_deletions)):
        await asyncio.gather(*(bucket.delete(keys.segment(position)) for position in batch))
        segments += len(batch)
    return Trimmed(deleted, segments, kept)


async def plan_trim(
    bucket: Bucket,
    keys: FolderKeys,
    checkpoints: Mapping[int, float],
    history: float,
    keep: KeptRules | None = None,
    rules: LogRules = LOG_RULES,
) -> TrimPlan:
    """Return what a trim deletes and keeps, given the ages of the checkpoints by their positions.

    For a day after the rules of what is kept were written, nothing of that is deleted. Raises StoreError.
    """
    base = find_base(checkpoints, max(history, rules.retention))
    surplus = surplus_checkpoints(checkpoints, base)
    if keep is None:
        return TrimPlan(base, surplus, {}, [])
    kept: dict[int, tuple[str, int]] = {}
    twice = []
    for key, (position, seconds) in sorted((await list_kept(bucket, keys)).items()):
        if position in kept:
            twice.append(key)
        else:
            kept[position] = (key, seconds)
    now = bucket.now()
    times = {position: now - age for position, age in checkpoints.items()}
    times |= {position: float(seconds) for position, (_, seconds) in kept.items()}
    wanted = keep.rules.wanted(times)
    to_keep = {
        position: keys.kept_checkpoint(position, max(int(times[position]), 0))
        for position in surplus
        if position in wanted and position not in kept
    }
    to_drop = twice + [key for position, (key, _) in kept.items() if position not in wanted]
    return TrimPlan(base, surplus, to_keep, to_drop if rules.retention <= keep.age < math.inf else [])


def _first(segments: Positions) -> int:
    return segments.ranges[0].start if segments else MAX_POSITION


def find_base(checkpoints: Mapping[int, float], history: float) -> int:
    """Return the position of the newest checkpoint whose age is above `history`; 0 for none.

    `checkpoints` has ages in seconds by positions.
    """
    return max((position for position, age in checkpoints.items() if age > history), default=0)


def surplus_checkpoints(checkpoints: Mapping[int, float], base: int) -> list[int]:
    """Return the positions of the checkpoints to delete, in ascending order."""
    after = sorted(position for position in checkpoints if position > base)
    oldest = {_bucket(checkpoints[position]): position for position in reversed(after)}
    kept = {base, *oldest.values(), *after[-_NEWEST_KEPT:]}
    return sorted(checkpoints.keys() - kept)


def _bucket(age: float) -> int:
    """Return 0 for an age below a day, 1 below two, 2 below four, 3 below eight, ..."""
    return int(max(age, 0.0) / DAY).bit_length()
