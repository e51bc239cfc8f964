"""Names of objects in the embedded server that cannot be relied on, after a power cut or in a copy of its directory.

The server keeps the names of objects and their data in different files, and the names in eight databases, by the
directory that they are in. Where these files are of different moments:

- The disk has a name and not the data. Reading the object waits and fails, and a write that needs a free key is
  refused. The server finds these names (`volume.fsck`), and they are removed.
- The disk has a name and not the directory that it is in. No listing has it, `volume.fsck` neither, but a request for
  the name finds it, perhaps without its data. So the databases are made again from what can be listed.

Then such an object is missing, as it would be if the power had failed, or the copy had been made, a moment earlier.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from untrusted_s3.errors import StoreError
from untrusted_s3.settings import EmbeddedSettings
from untrusted_s3.store.embedded.disk_sync import DiskSync
from untrusted_s3.store.embedded.files import Credentials, Ports
from untrusted_s3.store.embedded.ports import GRPC_OFFSET
from untrusted_s3.store.embedded.process import PortTakenError, ServerProcess
from untrusted_s3.store.embedded.volumes import REPAIRED

_TIMEOUT: Final = 3600.0
_PAUSE: Final = 0.5
_REMOVED_AT_ONCE: Final = 1000
_START_ATTEMPTS: Final = 3
_LOAD_ATTEMPTS: Final = 5
_COUNTED: Final = "names.counted"  # a file that only the server's count makes
_NAMES: Final = "filerldb2"  # below the volumes: the databases
_COLLECTED = re.compile(r"^dn \S+ collected (\d+) volumes", re.MULTILINE)
_VOLUME_GONE = re.compile(r"^\d+,[0-9a-f]+ (.*) volume not found$")
_PLAIN_PATH = re.compile(r"[0-9A-Za-z._/-]+")
_TOTAL = re.compile(r"^total \d+ directories, \d+ files$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Starting:
    """What a server is started with: the program, its directory with the lock, and so on."""

    weed: Path
    directory: Path
    lock: int
    credentials: Credentials
    settings: EmbeddedSettings
    choose_ports: Callable[[Path | None], Ports]


def remove_objects_without_data(starting: Starting, bucket: str) -> list[str]:
    """Remove the names in `bucket` whose data are gone, and return them as keys; and all names that no listing has.

    No server may run. Those that are started here have ports that no other program knows: nothing may be written before
    the end, for the server may give the number of lost data to new ones. A second call goes on where one was
    interrupted. Raises OSError or StoreError.
    """
    directory = starting.directory
    names = directory / "volumes" / _NAMES
    before, saved = directory / "names.before", directory / "names.saved"
    if before.exists():
        shutil.rmtree(names, ignore_errors=True)
        before.rename(names)
    with _served(starting) as ports:
        lost = _remove_lost(starting, ports, f"/buckets/{bucket}/")
        _shell(starting, ports, [f"fs.meta.save -v=false -o {saved.name} /"])
        count = _count(starting, ports, bucket)
    names.rename(before)
    with _served(starting) as ports:
        _load(starting, ports, saved, bucket, count)
    DiskSync(directory).sync()
    kept = directory / REPAIRED / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    before.rename(kept / _NAMES)
    saved.unlink()
    return lost


@contextlib.contextmanager
def _served(starting: Starting) -> Iterator[Ports]:
    """Run a server on ports of its own. What it has written survives its end. Raises OSError or StoreError."""
    for _ in range(_START_ATTEMPTS):
        ports = starting.choose_ports(None)
        try:
            process = ServerProcess.start(
                starting.weed,
                starting.directory,
                starting.lock,
                ports,
                starting.credentials,
                starting.settings.memory_limit,
            )
        except PortTakenError:
            continue
        try:
            process.wait_until_ready(starting.settings.start_timeout, writes=False)
            yield ports
        except PortTakenError:
            continue
        finally:
            process.end(0)
        return
    raise StoreError("the embedded store found no free ports: other programs take them as it starts")


def _load(starting: Starting, ports: Ports, saved: Path, bucket: str, count: str) -> None:
    """Load saved names into an empty server. `count` is how many the bucket has then. Raises StoreError.

    The server's shell (SeaweedFS 4.48) ends without waiting for the last name that it sends, and counts it as loaded.
    """
    for _ in range(_LOAD_ATTEMPTS):
        _shell(starting, ports, [f"fs.meta.load -v=false {saved.name}"])
        if _count(starting, ports, bucket) == count:
            return
    raise StoreError("the embedded store does not take its names back")


def _count(starting: Starting, ports: Ports, bucket: str) -> str:
    """Return how many names a bucket has, as the server says it. Raises StoreError."""
    answer = _shell(starting, ports, [f"fs.meta.save -v=false -o {_COUNTED} /buckets/{bucket}"])
    (starting.directory / _COUNTED).unlink(missing_ok=True)
    found = _TOTAL.search(answer)
    if found is None:
        raise StoreError(f"the embedded store does not give its names: {answer[-500:]}")
    return found[0]


def _remove_lost(starting: Starting, ports: Ports, root: str) -> list[str]:
    volumes = len(list((starting.directory / "volumes").glob("*.dat")))
    deadline = time.monotonic() + starting.settings.start_timeout
    while True:
        answer = _shell(starting, ports, ["volume.fsck -findMissingChunksInFiler -cutoffTimeAgo=0s -v"])
        found = _COLLECTED.search(answer)
        if found is not None and int(found[1]) == volumes:
            break
        if time.monotonic() > deadline:
            raise StoreError(f"the embedded store does not find all of its {volumes} volumes")
        time.sleep(_PAUSE)
    lost = _lost_paths(answer, root)
    for start in range(0, len(lost), _REMOVED_AT_ONCE):
        _shell(starting, ports, [f"fs.rm {path}" for path in lost[start : start + _REMOVED_AT_ONCE]])
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


def _shell(starting: Starting, ports: Ports, commands: list[str]) -> str:
    """Give commands to `weed shell` and return what it prints. Raises StoreError."""
    services = [
        f"-{service}=127.0.0.1:{ports[service]}.{ports[service] + GRPC_OFFSET}" for service in ("master", "filer")
    ]
    try:
        done = subprocess.run(
            [str(starting.weed), "-logtostderr=true", "shell", *services],
            input="\n".join(["lock", *commands, "unlock", "exit", ""]),
            cwd=starting.directory,
            env={"PATH": os.defpath, "HOME": str(starting.directory), "TMPDIR": str(starting.directory)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError("the embedded store was not checked within an hour") from None
    return done.stdout
