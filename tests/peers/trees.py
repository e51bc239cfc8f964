"""Folders worth synchronising, and their comparison."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import sysconfig
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

_PRIVATE = {".stfolder", ".stversions"}  # Syncthing's own, at the top of a folder
_TEMPORARY = re.compile(r"\.syncthing\..*\.tmp")  # its files in the making, kept for a day where it gave up
_OLD = 631_152_000_123_456_789  # 1990-01-01, in nanoseconds
_RECENT = 1_767_225_600_987_654_321  # 2026-01-01
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What Syncthing promises to keep of one item.

    `mtime_ns` is None for directories and symlinks, `mode` for symlinks: Syncthing does not synchronise them.
    """

    kind: Literal["file", "directory", "symlink"]
    mode: int | None = None
    mtime_ns: int | None = None
    size: int | None = None
    sha256: str | None = None
    target: str | None = None


def build_awkward_tree(root: Path) -> dict[str, str]:
    """Fill a folder with what tends to go wrong.

    Returns the paths with decomposed (NFD) names and the composed (NFC) ones they are going to have: on Linux
    Syncthing's scan renames them on disk, so compare trees only after the first scan.
    """
    for size in (0, 1, 1023, 1024, 1025, 131_071, 131_072, 131_073):
        random_file(root / "sizes" / f"{size} bytes", size, seed=size)

    names = [
        "with space",
        " leading and trailing ",
        "Grüße aus Köln",
        "漢字かな交じり文",
        "한국어",
        "🦄 and 👩‍👩‍👧‍👦",
        "quote'\"`$",
        "back\\slash",
    ]
    for number, name in enumerate(names):
        random_file(root / "names" / name, 100 + number, seed=number)
        random_file(root / "named folders" / name / "inside", 10 + number, seed=number)
    decomposed: dict[str, str] = {}
    for name in ("Ärger é", "がぎぐげご", "한글 🎉 ñ"):
        nfd, nfc = (unicodedata.normalize(form, f"decomposed/{name}") for form in ("NFD", "NFC"))
        random_file(root / nfd, 2000, seed=len(decomposed))
        decomposed[nfd] = nfc

    long_path = root.joinpath(*(letter * 230 for letter in "abc"), "at the end of a path of about 700 bytes")
    random_file(long_path, 4096, seed=700)
    random_file(root.joinpath(*(f"level {depth}" for depth in range(12)), "deep"), 5000, seed=12)
    (root / "empty directory").mkdir()
    (root / "private directory").mkdir(mode=0o700)
    random_file(root / "private directory" / "secret", 64, seed=64)

    for link, target in {
        "to nowhere": "does/not/exist",
        "to a file": "../sizes/1024 bytes",
        "to a directory": "../names",
    }.items():
        (root / "links").mkdir(exist_ok=True)
        (root / "links" / link).symlink_to(target)

    for mode in (0o600, 0o755, 0o444):
        file = root / "modes" / f"{mode:o}"
        random_file(file, 3000, seed=mode)
        file.chmod(mode)
    for name, mtime_ns in {"old": _OLD, "recent": _RECENT, "whole second": 1_000_000_000_000_000_000}.items():
        file = root / "times" / name
        random_file(file, 300, seed=mtime_ns)
        os.utime(file, ns=(mtime_ns, mtime_ns))
    return decomposed


def copy_stdlib(root: Path) -> None:
    """Copy the standard library of the running interpreter: thousands of small source files."""
    ignore = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "*.a")
    shutil.copytree(sysconfig.get_path("stdlib"), root, symlinks=True, ignore=ignore, dirs_exist_ok=True)


def random_file(path: Path, size: int, seed: int) -> None:
    """Write `size` bytes that no compression shortens; the same for the same seed."""
    key = hashlib.sha256(str(seed).encode()).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    zeros = bytes(_CHUNK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for written in range(0, size, _CHUNK):
            file.write(stream.update(zeros[: min(_CHUNK, size - written)]))


def count_files(root: Path) -> int:
    """The number of regular files, as Syncthing's `localFiles` counts them."""
    return sum(entry.kind == "file" for entry in manifest(root, contents=False).values())


def manifest(root: Path, contents: bool = True) -> dict[str, Entry]:
    """Every item below `root` by its relative path, without Syncthing's own; `contents=False` spares the hashing."""
    return {str(path.relative_to(root)): _entry(path, contents) for path in _walk(root) if path.name not in _PRIVATE}


def assert_same_tree(expected: Path, actual: Path) -> None:
    """Fail with the first differences if two folders do not hold the same."""
    left, right = manifest(expected), manifest(actual)
    differences = []
    for name in sorted(left.keys() | right.keys()):
        if name not in right:
            differences.append(f"missing: {name!r}: {left[name]}")
        elif name not in left:
            differences.append(f"unexpected: {name!r}: {right[name]}")
        elif left[name] != right[name]:
            differences.append(f"different: {name!r}:\n    expected {left[name]}\n    actual   {right[name]}")
    if differences:
        more = f"\n… and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise AssertionError(f"{expected} and {actual} differ:\n" + "\n".join(differences[:10]) + more)


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
