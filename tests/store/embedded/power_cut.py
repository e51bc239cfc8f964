"""What a disk holds of an embedded store after a power cut: a copy of its files, without what had not reached it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.waiting import wait_until


class RecordedFsync:
    """An `fsync` that notes how much of each file it has brought to the disk."""

    def __init__(self) -> None:
        self.sizes: dict[Path, int] = {}

    def __call__(self, descriptor: int) -> None:
        self.sizes[Path(f"/proc/self/fd/{descriptor}").readlink()] = os.fstat(descriptor).st_size
        os.fsync(descriptor)


def copy_paused(pid: int, directory: Path, image: Path) -> None:
    """Copy the files of a running store, whose server is process `pid`, as they are at one moment."""
    os.killpg(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _is_stopped(pid))
        shutil.copytree(directory, image)
    finally:
        os.killpg(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)


def cut_to_synced(directory: Path, image: Path, synced: Mapping[Path, int]) -> None:
    """Cut off from a copy of a store's `directory` what was not synced there.

    Files that were never synced are missing. The copy belongs to an earlier start of the system.
    """
    for path in [path for path in (image / "volumes").rglob("*") if path.is_file()]:
        size = synced.get(directory / path.relative_to(image))
        if size is None:
            path.unlink()
        else:
            cut(path, max(path.stat().st_size - size, 0))
    endpoint = json.loads((image / "endpoint.json").read_text())
    (image / "endpoint.json").write_text(json.dumps({**endpoint, "boot": "an earlier one"}))


def cut(path: Path, size: int, *, zeros: bool = False) -> None:
    """Cut off the last `size` bytes of a file, or replace them by zeros."""
    before = path.stat().st_size
    os.truncate(path, max(before - size, 0))
    if zeros:
        os.truncate(path, before)
