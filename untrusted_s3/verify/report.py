"""What was verified, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from untrusted_s3.problem import Problem


@dataclass(slots=True)
class VerifyReport:
    """What was verified, and what is wrong.

    Attributes:
        files: Files that were read.
        bytes: The bytes of their objects.
        others: Directories and symlinks.
        other_versions: How many of the files are other versions than those that the folder holds.
        damaged: What is damaged, by plain path, or by encrypted name if the path is not known.
        unreadable: Files whose objects the store refuses to give.
    """

    files: int = 0
    bytes: int = 0
    others: int = 0
    other_versions: int = 0
    damaged: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
