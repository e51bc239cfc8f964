"""What a check or a restore found wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one file or object, named by its plain path or its key."""

    path: str
    reason: str
