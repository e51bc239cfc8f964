"""Which of several versions of a file wins, by Syncthing's own rule, and which of the others a conflict loses.

This takes the real file infos. The rule is that of Syncthing 2 (`v2.1.3 internal/db/sqlite/folderdb_update.go`,
`fileRow.Compare` and `recalcGlobalForFile`). In Syncthing 1, an edit that is in conflict with a deletion wins whatever
the times are (`v1.29.5 lib/protocol/bep_fileinfo.go`, `WinsConflict`).
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.vector import counters
from untrusted_s3.index.history import to_datetime

# In the name of every conflict copy (`v2.1.3 lib/model/folder_sendrecv.go`, `isConflict`)
CONFLICT_MARK = ".sync-conflict-"
_NANOSECONDS = 1_000_000_000
_SHORT_ID_LENGTH = 7
_SECOND = timedelta(seconds=1)


class Order(enum.Enum):
    """How one version vector relates to another one."""

    EQUAL = enum.auto()
    GREATER = enum.auto()
    LESSER = enum.auto()
    CONCURRENT_LESSER = enum.auto()
    CONCURRENT_GREATER = enum.auto()


def compare(one: pb.Vector, other: pb.Vector) -> Order:
    """Return how `one` relates to `other` (`v2.1.3 lib/protocol/vector.go`, `Compare`).

    Of two concurrent vectors, the one with the larger counter at the first difference is the greater one. A counter
    that a vector lacks is 0.
    """
    ours, theirs = counters(one), counters(other)
    result = Order.EQUAL
    for device in sorted(ours.keys() | theirs.keys()):
        difference = ours.get(device, 0) - theirs.get(device, 0)
        if difference > 0:
            if result is Order.LESSER:
                return Order.CONCURRENT_LESSER
            result = Order.GREATER
        elif difference < 0:
            if result is Order.GREATER:
                return Order.CONCURRENT_GREATER
            result = Order.LESSER
    return result


def wins(one: pb.FileInfo, other: pb.FileInfo) -> bool:
    """Return whether `one` wins over `other`, where a device has just these two. Of equal versions, none does."""
    order = compare(one.version, other.version)
    if order is Order.GREATER or order is Order.LESSER:
        return order is Order.GREATER
    if one.invalid != other.invalid:
        return other.invalid
    if order is Order.EQUAL:
        return False
    ours, theirs = _modified_ns(one), _modified_ns(other)
    return ours > theirs if ours != theirs else order is Order.CONCURRENT_GREATER


def winner(versions: Sequence[pb.FileInfo]) -> int:
    """Return the place of the version that wins: the first one, where several are equal.

    A version that a device ignores never wins over another one. Where three or more versions win over each other in a
    circle, Syncthing's choice depends on the order in which its database has them; here, a version that another one is
    based on never wins.
    """
    places = [place for place, version in enumerate(versions) if not version.invalid] or list(range(len(versions)))
    newest = [
        place
        for place in places
        if not any(compare(versions[other].version, versions[place].version) is Order.GREATER for other in places)
    ]
    return max(newest, key=lambda place: (_modified_ns(versions[place]), _rank(versions[place].version)))


def loses_content(winning: pb.FileInfo, losing: pb.FileInfo) -> bool:
    """Return whether a device that has `losing` makes a conflict copy of it when it takes over `winning`.

    Only of files, and not where the contents are equal (`v2.1.3 lib/model/folder_sendrecv.go`, `handleFile`), the
    winner is based on the loser, or was made from its very content (`v2.1.3 lib/protocol/bep_fileinfo.go`,
    `InConflictWith`).
    """
    if losing.deleted or losing.invalid or losing.type != pb.FILE or winning.invalid:
        return False
    if compare(winning.version, losing.version) in (Order.EQUAL, Order.GREATER):
        return False
    if not winning.deleted and winning.type == pb.FILE and _has_same_content(winning, losing):
        return False
    known = bool(winning.previous_blocks_hash) and bool(winning.blocks_hash)
    return not known or winning.previous_blocks_hash != losing.blocks_hash


def conflict_paths(path: str, real: pb.FileInfo) -> Iterator[str]:
    """Yield the paths that a conflict copy of `path` may have, the best one first.

    They look as Syncthing's do (`v2.1.3 lib/model/folder_sendrecv.go`, `conflictName`). The time in them is the
    version's modification time in UTC, the device the one that made the version. Further paths have other seconds.
    """
    directory, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    moment = to_datetime(real.modified_s * 1000)
    step = -_SECOND if moment.year > datetime.max.year // 2 else _SECOND
    device = _short_id(real.modified_by)
    while True:
        time = f"{moment.year:04}{moment:%m%d-%H%M%S}"
        yield f"{directory}{slash}{stem}{CONFLICT_MARK}{time}-{device}{dot}{extension}"
        moment += step


def _rank(vector: pb.Vector) -> list[tuple[int, int]]:
    """Return what sorts concurrent vectors as `compare` does."""
    return sorted(((-counter.id, counter.value) for counter in vector.counters if counter.value), reverse=True)


def _has_same_content(one: pb.FileInfo, other: pb.FileInfo) -> bool:
    same_size = one.size == other.size and len(one.blocks) == len(other.blocks)
    return same_size and all(ours.hash == theirs.hash for ours, theirs in zip(one.blocks, other.blocks, strict=True))


def _short_id(device: int) -> str:
    """Return the first characters of a device ID from its first 64 bits (`v2.1.3 lib/protocol/deviceid.go`)."""
    if not device:
        return ""
    return base64.b32encode(device.to_bytes(8, "big")).decode("ascii")[:_SHORT_ID_LENGTH]


def _modified_ns(real: pb.FileInfo) -> int:
    return real.modified_s * _NANOSECONDS + real.modified_ns
