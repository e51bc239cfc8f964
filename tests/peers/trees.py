"""Folders to synchronize, and their comparison."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

from bench.sharing import assert_same_tree
from untrusted_s3.compat.awkward_tree import build_awkward_tree, random_file
from untrusted_s3.compat.trees import manifest

__all__ = ["assert_same_tree", "build_awkward_tree", "copy_stdlib", "count_files", "manifest", "random_file"]


def copy_stdlib(root: Path) -> None:
    """Copy the standard library of the running interpreter: thousands of small source files."""
    ignore = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "*.a")
    shutil.copytree(sysconfig.get_path("stdlib"), root, symlinks=True, ignore=ignore, dirs_exist_ok=True)


def count_files(root: Path) -> int:
    """Return the number of regular files, which Syncthing calls `localFiles`."""
    return sum(entry.kind == "file" for entry in manifest(root, contents=False).values())
