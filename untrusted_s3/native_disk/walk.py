"""What lies in the directory of a receive-encrypted folder: encrypted files, and what does not belong there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from untrusted_s3.bep.file_info import is_encrypted_name

# What Syncthing keeps in a folder's directory beside its marker. A user of macOS or Windows finds more.
_OWN_NAMES = frozenset((".stfolder", ".stversions", ".stignore"))
# v2.1.3 lib/fs/tempname.go
_TEMPORARY_PREFIXES = (".syncthing.", "~syncthing~")
_TEMPORARY_SUFFIX = ".tmp"
# The directories that encrypted names share: X.syncthing-enc, YY, and whole components of 200 characters.
_PARENT = re.compile(r"[0-9A-V]\.syncthing-enc(/[0-9A-V]{2}(/[0-9A-V]{200})*)?")


class Kind(Enum):
    """What something on the disk is."""

    FILE = auto()  # an encrypted file, by its name
    DIRECTORY = auto()  # an encrypted directory or symlink
    TEMPORARY = auto()  # a file that Syncthing has not received as a whole
    STRANGE = auto()  # no part of an encrypted folder


@dataclass(frozen=True, slots=True)
class Found:
    """Something on the disk.

    Attributes:
        path: The path from the folder's directory, with slashes.
        kind: What it is.
        size: The bytes of a file.
        reason: Why it is STRANGE.
    """

    path: str
    kind: Kind
    size: int = 0
    reason: str = ""


def walk(directory: Path, marker: str) -> Iterator[Found]:
    """Yield what lies in a folder's directory, in the order of the names. `marker` and Syncthing's own are left out.

    Symlinks are not followed. Something strange that is a directory is yielded once, without what is in it, and so is
    a directory that cannot be read.
    """
    yield from _walk(directory, "", _OWN_NAMES | {marker})


def _walk(directory: Path, prefix: str, left_out: frozenset[str]) -> Iterator[Found]:
    try:
        with os.scandir(directory / prefix) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Found(prefix, Kind.STRANGE, reason=f"the directory cannot be read: {error.strerror}")
        return
    if not entries and is_encrypted_name(prefix):
        yield Found(prefix, Kind.DIRECTORY)
        return
    for entry in entries:
        if entry.name in left_out:
            continue
        path = f"{prefix}/{entry.name}" if prefix else entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            yield Found(path, Kind.STRANGE, reason=f"it cannot be read: {error.strerror}")
            continue
        if stat.S_ISDIR(status.st_mode) and (_PARENT.fullmatch(path) or is_encrypted_name(path)):
            yield from _walk(directory, path, frozenset())
        else:
            yield _no_directory(path, entry.name, status)


def _no_directory(path: str, name: str, status: os.stat_result) -> Found:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink"}
        what = kinds.get(stat.S_IFMT(status.st_mode), "not a file")
        return Found(path, Kind.STRANGE, reason=f"{what} whose name is not encrypted")
    if is_encrypted_name(path):
        return Found(path, Kind.FILE, status.st_size)
    if name.startswith(_TEMPORARY_PREFIXES) and name.endswith(_TEMPORARY_SUFFIX):
        return Found(path, Kind.TEMPORARY, status.st_size)
    return Found(path, Kind.STRANGE, reason="a file whose name is not encrypted")
