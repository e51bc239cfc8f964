"""Objects of the embedded server that a power cut has left without their data.

The server keeps the names of objects and their data in different files. If the disk has a name and not the data,
reading the object waits and fails, and a write that needs a free key is refused. Such names are removed, so that the
object is missing, as it would be if the power had failed a moment earlier.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Final

from untrusted_s3.errors import StoreError
from untrusted_s3.store.embedded.files import Ports
from untrusted_s3.store.embedded.ports import GRPC_OFFSET

_TIMEOUT: Final = 3600.0
_PAUSE: Final = 0.5
_REMOVED_AT_ONCE: Final = 1000
_COLLECTED = re.compile(r"^dn \S+ collected (\d+) volumes", re.MULTILINE)
_VOLUME_GONE = re.compile(r"^\d+,[0-9a-f]+ (.*) volume not found$")
_PLAIN_PATH = re.compile(r"[0-9A-Za-z._/-]+")


def remove_objects_without_data(weed: Path, directory: Path, ports: Ports, bucket: str, timeout: float) -> list[str]:
    """Remove the names in `bucket` whose data are gone, and return them as keys.

    Call this before anything is written: the server may give the number of lost data to new ones. `weed` is the server
    program, `timeout` how long the running server may take to find its volumes. Raises StoreError.
    """
    volumes = len(list((directory / "volumes").glob("*.dat")))
    root = f"/buckets/{bucket}/"
    deadline = time.monotonic() + timeout
    while True:
        answer = _shell(weed, directory, ports, ["volume.fsck -findMissingChunksInFiler -cutoffTimeAgo=0s -v"])
        found = _COLLECTED.search(answer)
        if found is not None and int(found[1]) == volumes:
            break
        if time.monotonic() > deadline:
            raise StoreError(f"the embedded store does not find all of its {volumes} volumes")
        time.sleep(_PAUSE)
    lost = _lost_paths(answer, root)
    for start in range(0, len(lost), _REMOVED_AT_ONCE):
        _shell(weed, directory, ports, [f"fs.rm {path}" for path in lost[start : start + _REMOVED_AT_ONCE]])
    return [path.removeprefix(root) for path in lost]


def _lost_paths(answer: str, root: str) -> list[str]:
    """Return the paths below `root` in the answer of `volume.fsck`. All names there are plain (store/layout.py)."""
    paths = set()
    for line in answer.splitlines():
        gone = _VOLUME_GONE.match(line)
        path = gone[1] if gone else line
        if path.startswith(root) and _PLAIN_PATH.fullmatch(path):
            paths.add(path)
    return sorted(paths)


def _shell(weed: Path, directory: Path, ports: Ports, commands: list[str]) -> str:
    """Give commands to `weed shell` and return what it prints. Raises StoreError."""
    services = [
        f"-{service}=127.0.0.1:{ports[service]}.{ports[service] + GRPC_OFFSET}" for service in ("master", "filer")
    ]
    try:
        done = subprocess.run(
            [str(weed), "-logtostderr=true", "shell", *services],
            input="\n".join(["lock", *commands, "unlock", "exit", ""]),
            cwd=directory,
            env={"PATH": os.defpath, "HOME": str(directory), "TMPDIR": str(directory)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError("the embedded store was not checked within an hour") from None
    return done.stdout
