"""What the embedded server has written reaches the disk before others rely on it.

SeaweedFS answers a PUT when the data are in the page cache: it calls fsync neither for its volumes nor for the filer's
database (v4.48 weed/storage/volume_write.go, weed/filer/leveldb2). A power cut would take back what was confirmed.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from untrusted_s3.errors import PreconditionFailed, StoreUnreachable
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Buffer
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.threads import in_thread

# A file may change once more within one step of the clock that its modification time comes from.
_CLOCK_STEP: Final = 1_000_000_000


class DiskSync:
    """Brings a directory's changed files to the disk. Of many calls at once, one does the work for all.

    Attributes:
        waiting: How many calls wait for another one to end.
    """

    def __init__(self, directory: Path, fsync: Callable[[int], None] = os.fsync) -> None:
        self._directory = directory
        self._fsync = fsync
        self.waiting = 0
        self._lock = threading.Lock()
        self._count = threading.Lock()
        self._asked = 0
        self._done = 0
        self._synced: dict[str, tuple[int, int, int]] = {}

    def sync(self) -> None:
        """Return when all that was written before the call is on the disk. Raises OSError."""
        with self._count:
            self._asked += 1
            mine = self._asked
            self.waiting += 1
        with self._lock:
            with self._count:
                self.waiting -= 1
                asked = self._asked
            if self._done < mine:
                self._sync_changed()
                self._done = asked

    def _sync_changed(self) -> None:
        seen: dict[str, tuple[int, int, int]] = {}
        for path in _files_and_directories(self._directory):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # deleted meanwhile
            try:
                found = os.fstat(descriptor)
                state = found.st_ino, found.st_size, found.st_mtime_ns
                if self._synced.get(path) != state:
                    self._fsync(descriptor)
                if found.st_mtime_ns + _CLOCK_STEP < time.time_ns():
                    seen[path] = state
            finally:
                os.close(descriptor)
        self._synced = seen


def _files_and_directories(directory: Path) -> Iterator[str]:
    """Yield all regular files below a directory, and after them the directories that hold them."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118
            if stat.S_ISREG(_mode(path)):
                yield path
        yield parent


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


class CheckedServer(Protocol):
    """A server that may have lost objects that others rely on."""

    @property
    def in_doubt(self) -> bool:
        """Whether it may have lost any, and nobody has checked that yet."""
        ...

    def checked(self) -> None:
        """Note that it was checked. Raises OSError."""
        ...


class EmbeddedBucket(S3Bucket):
    """The embedded server's bucket.

    A write of anything but a file's data returns when it is on the disk, with all that was written before. So a peer
    hears of a file only when a power cut does not take the file back.

    Attributes:
        disk: Brings the server's files to the disk.
        server: The server.
    """

    disk: DiskSync
    server: CheckedServer

    @property
    def in_doubt(self) -> bool:
        return self.server.in_doubt

    def checked(self) -> None:
        self.server.checked()

    async def put(
        self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int | None = None
    ) -> None:
        try:
            await super().put(key, body, if_none_match=if_none_match, lifetime=lifetime)
        except PreconditionFailed:
            await self._sync(key)  # an earlier try may have written it
            raise
        await self._sync(key)

    async def delete(self, key: str, *, lifetime: int | None = None) -> None:
        await super().delete(key, lifetime=lifetime)
        await self._sync(key)

    async def _sync(self, key: str) -> None:
        if layout.holds_file_data(key):
            return
        try:
            await in_thread(self.disk.sync)
        except OSError as error:
            raise StoreUnreachable(f"the disk of the embedded store does not take {key}: {error.strerror}") from error
