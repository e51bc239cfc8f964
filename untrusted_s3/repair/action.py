"""What a repair does about one thing that is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Remedy(StrEnum):
    """What is done."""

    WRITTEN = "written again"
    COPIED = "copied from the other store"
    MOVED = "moved aside"
    DELETED = "deleted"
    TAKEN_BACK = "taken back"
    HEALED = "healed"
    LEFT = "left to a gateway"
    LATER = "left for now"
    NONE = "cannot be repaired"

    @property
    def is_none(self) -> bool:
        """Whether nothing is done."""
        return self is Remedy.NONE

    @property
    def waits(self) -> bool:
        """Whether it is done later, by a gateway or by another repair."""
        return self in (Remedy.LEFT, Remedy.LATER)


@dataclass(frozen=True, slots=True)
class Action:
    """What a repair does, or would do.

    Attributes:
        path: The key of what is damaged.
        problem: What is wrong with it.
        remedy: What is done.
        reason: What comes of it, or why nothing is done.
        name: The encrypted name of a file, or nothing.
    """

    path: str
    problem: str
    remedy: Remedy
    reason: str
    name: str = ""
