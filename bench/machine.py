"""A description of the machine, without which figures mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from untrusted_s3 import __version__
from untrusted_s3.store.embedded.process import find_weed


def describe(syncthing_version: str | None = None) -> str:
    """Return one line: processor, cores, memory, load, kernel, date and versions, with Syncthing's if given."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    parts = [
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.2f}",
        f"Linux {platform.release()}",
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        f"untrusted_s3 {__version__}",
        f"Python {platform.python_version()}",
        *([f"Syncthing {syncthing_version}"] if syncthing_version else []),
        f"SeaweedFS {_version_in([str(find_weed()), 'version'], 2)}",
    ]
    if shutil.which("s3fs") is not None:
        parts.append(f"s3fs {_version_in(['s3fs', '--version'], 6)}")
    return "; ".join(parts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version_in(command: list[str], word: int) -> str:
    """Return a word of the first line that a program prints about its version."""
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0].split()
    return words[word] if len(words) > word else "of unknown version"
