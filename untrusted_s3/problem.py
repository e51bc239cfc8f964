"""What a check or a restore found wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one file or object.

    Attributes:
        path: The plain path of a file, its encrypted name if the path is not known, or the key of an object.
        reason: What is wrong.
    """

    path: str
    reason: str
