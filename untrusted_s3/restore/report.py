"""What a restore is to do, and what it has done."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from untrusted_s3.problem import Problem


class Outcome(enum.StrEnum):
    """What became of a file or symlink, or would in a dry run."""

    RESTORED = "restored"
    THERE = "there already"


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the user chooses.

    Attributes:
        overwrite: Replace files and symlinks that differ.
        owner: Restore user and group.
        xattrs: Restore extended attributes of the namespace `user`.
        dry_run: Fetch and write nothing; only report.
        privileged_xattrs: Restore extended attributes of all namespaces.
    """

    overwrite: bool = False
    owner: bool = False
    xattrs: bool = False
    dry_run: bool = False
    privileged_xattrs: bool = False


@dataclass(slots=True)
class RestoreReport:
    """What was restored and what was not.

    Attributes:
        files: Files that were written.
        directories: Directories that were made, or existed.
        symlinks: Symlinks that were made.
        bytes: The bytes of the files that were written.
        there: Files and symlinks that were there already.
        failed: What is not restored.
        taken: The paths of these that failed because something else is there that may be overwritten.
        incomplete: What is restored without some of its metadata.
        not_tried: How many files, directories and symlinks were not tried after the disk was full.
        conflicts: How many conflicts there are among what was selected, whether their copies are restored or not.
    """

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    bytes: int = 0
    there: int = 0
    failed: list[Problem] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    incomplete: list[Problem] = field(default_factory=list)
    not_tried: int = 0
    conflicts: int = 0
