"""The versions of the programs and libraries in a run of `compat`."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from untrusted_s3 import __version__
from untrusted_s3.compat.syncthing import syncthing_version
from untrusted_s3.store.embedded.process import find_weed

LIBRARIES = ("cryptography", "protobuf", "pyOpenSSL", "lz4", "aiohttp", "boto3")

_COMMAND_SECONDS = 30.0
_WEED_VERSION = re.compile(r"version \S+ (\S+)")


def versions(binary: Path) -> dict[str, str]:
    """Return the versions of the Syncthing program `binary`, this program, SeaweedFS, Python and the main libraries.

    Raises UsageError if `binary` is not Syncthing, or if SeaweedFS is not installed.
    """
    found = {
        "syncthing": syncthing_version(binary),
        "untrusted-s3": __version__,
        "seaweedfs": _weed_version(),
        "python": platform.python_version(),
    }
    return found | {name: version(name) for name in LIBRARIES}


def _weed_version() -> str:
    weed = find_weed()
    try:
        done = subprocess.run([weed, "version"], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    said = _WEED_VERSION.search(done.stdout)
    return said[1] if said else "unknown"
