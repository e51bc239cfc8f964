"""Folders to synchronize, and their comparison."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from bench.sharing import assert_same_tree
from untrusted_s3.compat.awkward_tree import build_awkward_tree, random_file
from untrusted_s3.compat.trees import manifest

__all__ = [
    "assert_same_tree",
    "build_awkward_tree",
    "copy_files",
    "copy_stdlib",
    "count_files",
    "manifest",
    "random_file",
]


def copy_stdlib(root: Path, most: int | None = None) -> None:
    """Copy the standard library of the running interpreter: thousands of small source files. `most` copies so many."""
    copy_files(Path(sysconfig.get_path("stdlib")), root, most)


def copy_files(source: Path, target: Path, most: int | None = None) -> None:
    """Copy the files of an installed package or library, or `most` of them from all over its tree."""
    left_out = {"__pycache__", "site-packages", "dist-packages"}
    files = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and not left_out & set(path.relative_to(source).parts) and path.suffix != ".a"
    ]
    count = len(files) if most is None else min(most, len(files))
    for number in range(count):
        path = files[number * len(files) // count]
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)


def count_files(root: Path) -> int:
    """Return the number of regular files, which Syncthing calls `localFiles`."""
    return sum(entry.kind == "file" for entry in manifest(root, contents=False).values())
