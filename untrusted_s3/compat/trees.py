"""What Syncthing preserves of a folder, and how two folders differ."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_PRIVATE = {".stfolder", ".stversions"}  # Syncthing's own directories, at the top of a folder
_TEMPORARY = re.compile(r"\.syncthing\..*\.tmp")  # files being pulled; kept for a day after a failure


@dataclass(frozen=True)
class Entry:
    """What Syncthing preserves of one item.

    `mtime_ns` is None for directories and symlinks, `mode` is None for symlinks: Syncthing does not synchronize them.
    """

    kind: Literal["file", "directory", "symlink"]
    mode: int | None = None
    mtime_ns: int | None = None
    size: int | None = None
    sha256: str | None = None
    target: str | None = None


def manifest(root: Path, contents: bool = True) -> dict[str, Entry]:
    """Return the items below `root` by relative path, without Syncthing's own; `contents=False` spares the hashing."""
    return {str(path.relative_to(root)): _entry(path, contents) for path in _walk(root) if path.name not in _PRIVATE}


def differences(expected: Mapping[str, Entry], actual: Mapping[str, Entry]) -> list[str]:
    """Return a line for each path where two manifests differ."""
    found = []
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            found.append(f"missing: {name!r}: {expected[name]}")
        elif name not in expected:
            found.append(f"unexpected: {name!r}: {actual[name]}")
        elif expected[name] != actual[name]:
            found.append(f"different: {name!r}:\n    expected {expected[name]}\n    actual   {actual[name]}")
    return found


def _walk(root: Path) -> Iterator[Path]:
    for folder, directories, files in os.walk(root):
        if Path(folder) == root:
            directories[:] = [name for name in directories if name not in _PRIVATE]
        yield from (Path(folder, name) for name in directories + files if not _TEMPORARY.fullmatch(name))


def _entry(path: Path, contents: bool) -> Entry:
    status = path.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Entry("symlink", target=str(path.readlink()))
    if stat.S_ISDIR(status.st_mode):
        return Entry("directory", mode=mode)
    digest = None
    if contents:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Entry("file", mode=mode, mtime_ns=status.st_mtime_ns, size=status.st_size, sha256=digest)
