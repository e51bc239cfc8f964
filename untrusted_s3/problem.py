"""What a check or a restore found wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong with an object of the store."""

    RECORD = "record unreadable"
    SEGMENT_MISSING = "segment missing"
    SEGMENT_DAMAGED = "segment damaged"
    HISTORY_MISSING = "history missing"
    CHECKPOINT_DAMAGED = "checkpoint damaged"
    CHECKPOINT_DIFFERS = "checkpoint differs"
    OBJECT_MISSING = "object missing"
    OBJECT_SIZE = "object of another size"
    OBJECT_DAMAGED = "object damaged"
    OBJECT_UNREADABLE = "object not readable"
    FILE_MISSING = "file missing"
    UNKNOWN = "unknown"

    @property
    def is_damage(self) -> bool:
        """Whether something of what the store should have now is damaged or missing."""
        return self not in (Kind.HISTORY_MISSING, Kind.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one file or object.

    Attributes:
        path: The plain path of a file, its encrypted name if the path is not known, or the key of an object.
        reason: What is wrong.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finding(Problem):
    """Something wrong with one object, for a program.

    Attributes:
        kind: What kind of thing is wrong.
        name: The encrypted name of a file; empty where it is not about a file.
    """

    kind: Kind
    name: str = ""
