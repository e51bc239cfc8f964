"""Decides which of a folder's announced files to bring in next, and from which peers.

Work is taken from the pending index in the order of the announcing device's sequence numbers, so that its cursor
moves on. Deletions and directories need no data and go straight to the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.counters import Counters
from untrusted_s3.errors import (
    BlockUnavailable,
    DataError,
    StateDamaged,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    WriteStopped,
)
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.assembly import FetchBlock
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.writer import ObjectWriter

_logger = structlog.get_logger()
_SCAN_BATCH = 200


class Source(Protocol):
    """A connected peer that shares the folder."""

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        """One encrypted block. Raises BlockUnavailable."""
        ...


class Puller:
    """Brings in one folder's pending files; `commit` takes each finished entry for the log."""

    def __init__(
        self,
        folder_id: str,
        state: FolderState,
        pending: PendingIndex,
        writer: ObjectWriter,
        commit: Callable[[Entry], None],
        counters: Counters,
    ) -> None:
        self.sources: dict[DeviceID, Source] = {}
        self.error: str | None = None
        self._folder_id = folder_id
        self._state = state
        self._pending = pending
        self._writer = writer
        self._commit = commit
        self._counters = counters
        # By name: the size of the file info, for these are in memory.
        self._in_work: dict[str, int] = {}
        self._bytes_in_work = 0
        # By name, the version that failed last; it has to wait until everything that failed is tried again.
        self._failures: dict[str, pb.Vector] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._large: deque[FileInfo] = deque()
        self._active_small = 0
        self._active_large = 0
        # Per source: entries read from the pending index, and how far it has been read.
        self._queues: dict[DeviceID, deque[Pending]] = {}
        self._scanned: dict[DeviceID, int] = {}
        self._wake = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        # How often in a row the store has failed us; while it is in trouble nothing is begun before the next try.
        self._store_failures = 0
        self._store_in_trouble = False
        self._draining = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._in_work

    @property
    def in_work(self) -> int:
        """How many entries are under way and not in the log yet."""
        return len(self._in_work)

    def add_source(self, device_id: DeviceID, source: Source) -> None:
        """A peer that shares the folder is there."""
        self.sources[device_id] = source
        self._failures.clear()  # it may have what others lack
        self.rescan()

    def remove_source(self, device_id: DeviceID, source: Source) -> None:
        """The peer is gone, or does not share the folder any more."""
        if self.sources.get(device_id) is source:
            del self.sources[device_id]
            self.rescan()  # an older version of another source may be the newest now

    def wake(self) -> None:
        """There may be something new to do."""
        self._wake.set()

    def rescan(self) -> None:
        """Looks at everything pending again: after a failure, or when a source has come."""
        self._queues.clear()
        self._scanned.clear()
        self._wake.set()

    def committed(self, name: str) -> None:
        """What was under way for this name is in the log; if something newer is pending, it can begin."""
        self._leave(name)
        if any(self._state.wants(other.file_info) for other in self._pending.of_name(name)):
            self.rescan()
        self._wake.set()

    async def drain(self) -> None:
        """Begins nothing any more and waits until what is under way has ended, of large files the parts that are.

        Not for longer than limits.DRAIN_PULLS_TIMEOUT.
        """
        self._draining = True
        self._writer.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.DRAIN_PULLS_TIMEOUT)

    async def run(self) -> None:
        """Works until cancelled; then running pulls are cancelled as well."""
        self.rescan()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._start_some()
                await asyncio.sleep(0)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
                self._failures.clear()
            self._store_in_trouble = False

    def _start_some(self) -> None:
        """Takes some of each source's pending entries into work, and wakes itself where there may be more at once."""
        if self._draining:
            return
        while self._large and self._active_large < limits.CONCURRENT_LARGE_FILES and not self._store_in_trouble:
            self._start(self._large.popleft(), large=True)
        for device_id in list(self.sources):
            if self._start_some_of(device_id):
                self._wake.set()
        if self.idle and self._retry is None:
            self.error = None  # whatever failed is not wanted any more, or its source is gone

    def _start_some_of(self, device_id: DeviceID) -> bool:
        queue = self._queues.setdefault(device_id, deque())
        if not queue:
            queue.extend(self._pending.after(device_id, self._scanned.get(device_id, 0), _SCAN_BATCH))
            if queue:
                self._scanned[device_id] = queue[-1].sequence
        handled = []
        taken = 0
        while queue and self._has_room:
            entry = queue.popleft()
            taken += 1
            if not self._take(entry):
                handled.append(entry)
        if handled:
            self._pending.remove(handled)
        return taken > 0 and self._has_room

    @property
    def _has_room(self) -> bool:
        return (
            not self._store_in_trouble
            and self._active_small < limits.CONCURRENT_SMALL_FILES
            and len(self._large) < limits.QUEUED_LARGE_FILES
            and len(self._in_work) < limits.ENTRIES_IN_WORK
            and self._bytes_in_work < limits.FILE_INFOS_IN_WORK
        )

    def _leave(self, name: str) -> None:
        self._bytes_in_work -= self._in_work.pop(name, 0)

    def _take(self, entry: Pending) -> bool:
        """Takes a pending entry into work. False where the folder has it, or something newer."""
        file_info = entry.file_info
        if not self._state.wants(file_info):
            return False
        if file_info.name in self._in_work or self._failures.get(file_info.name) == file_info.message.version:
            return True
        if len(self.sources) > 1 and self._is_outdated(file_info):
            return True
        self._in_work[file_info.name] = len(file_info.raw)
        self._bytes_in_work += len(file_info.raw)
        if not file_info.has_data:
            self._commit(Entry(file_info, None))
        elif self._writer.is_large(file_info):
            self._large.append(file_info)
            self._wake.set()
        else:
            self._start(file_info, large=False)
        return True

    def _start(self, file_info: FileInfo, *, large: bool) -> None:
        if large:
            self._active_large += 1
        else:
            self._active_small += 1
        task = asyncio.create_task(self._pull(file_info))
        self._tasks.add(task)
        # Not by the task itself: one that is cancelled before its first step does nothing.
        task.add_done_callback(partial(self._ended, file_info.name, large))

    def _ended(self, name: str, large: bool, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if large:
            self._active_large -= 1
        else:
            self._active_small -= 1
        if task.cancelled():
            self._leave(name)
        self._wake.set()

    async def _pull(self, file_info: FileInfo) -> None:
        try:
            current = self._state.entry(file_info.name)
            if current and current.stored and content_hash(current.file_info) == content_hash(file_info):
                # Only metadata changed: the data stays where it is.
                stored = current.stored
            else:
                stored = await self._writer.write(
                    file_info, self._fetcher(file_info), current, partial(self._is_superseded, file_info)
                )
            self._succeeded()
            self._commit(Entry(file_info, stored))
        except WriteStopped:
            self._leave(file_info.name)
            self.rescan()
        except (BlockUnavailable, StoreError, DataError, StateDamaged) as error:
            self._failed(file_info, error)
        except Exception as error:
            _logger.exception("a fault of our own while pulling", folder=self._folder_id, name=file_info.name[:40])
            self._failed(file_info, error)

    def _succeeded(self) -> None:
        self.error = None
        self._store_failures = 0
        if self._store_in_trouble:
            self._store_in_trouble = False
            self._wake.set()

    def _failed(self, file_info: FileInfo, error: Exception) -> None:
        self._leave(file_info.name)
        self._counters.pull_failures.inc()
        if isinstance(error, StoreError | DataError):
            self.error = str(error)
        if self._is_outdated(file_info):
            # Changed while it was under way: the newer version is due, not this one.
            self.rescan()
            return
        self._failures[file_info.name] = file_info.message.version
        store_failed = isinstance(error, StoreUnreachable | StoreRefused)
        # Of many that fail together, as when a directory was deleted at the peer, one is told.
        if self.sources and (self._retry is None or store_failed) and not self._store_in_trouble:
            _logger.warning("pull failed", folder=self._folder_id, name=file_info.name[:40], error=str(error))
        delay = limits.PULL_RETRY_INTERVAL
        if store_failed:
            # Other files would fare no better, and peers would send their blocks in vain.
            self._store_in_trouble = True
            delay = min(delay * 2**self._store_failures, limits.MAX_PULL_RETRY_INTERVAL)
        if self._retry is None:
            self._store_failures += self._store_in_trouble
            self._retry = asyncio.get_running_loop().call_later(delay, self._try_again)

    def _is_outdated(self, file_info: FileInfo) -> bool:
        """Whether a connected peer announces a newer version of the file."""
        return any(True for _ in self._newer(file_info))

    def _newer(self, file_info: FileInfo) -> Iterator[Pending]:
        """The newer versions of the file that connected peers announce."""
        for other in self._pending.of_name(file_info.name):
            if other.device_id in self.sources and is_newer(other.file_info.message.version, file_info.message.version):
                yield other

    def _is_superseded(self, file_info: FileInfo) -> bool:
        """Whether the content of the file is not wanted any more: another gateway has brought in that or something
        newer, or a connected peer announces newer content."""
        if not self._state.wants(file_info):
            return True
        return any(content_hash(other.file_info) != content_hash(file_info) for other in self._newer(file_info))

    def _try_again(self) -> None:
        self._retry = None
        self._store_in_trouble = False
        if self.sources and self._failures:
            _logger.info("trying again what failed", folder=self._folder_id, files=len(self._failures))
        self._failures.clear()
        self.rescan()

    def _fetcher(self, file_info: FileInfo) -> FetchBlock:
        """Gets blocks of one version of a file from whoever announces that version, in turn."""
        announcing = self._announcing(file_info)

        async def fetch_block(number: int, block: pb.BlockInfo) -> memoryview:
            nonlocal announcing
            reason = "no connected peer has it"
            tried: list[Source] = []
            while True:
                untried = self._connected(announcing, tried)
                if not untried:
                    # One may have announced it, or have come back, since this pull began.
                    announcing = self._announcing(file_info)
                    untried = self._connected(announcing, tried)
                if not untried:
                    raise BlockUnavailable(f"block {number}: {reason}")
                source = untried[number % len(untried)]
                tried.append(source)
                try:
                    return await source.request_block(self._folder_id, file_info.name, number, block)
                except BlockUnavailable as error:
                    reason = str(error)

        return fetch_block

    def _announcing(self, file_info: FileInfo) -> list[DeviceID]:
        """Who has announced just this version of the file."""
        return [
            other.device_id
            for other in self._pending.of_name(file_info.name)
            if other.file_info.message.version == file_info.message.version
        ]

    def _connected(self, devices: Iterable[DeviceID], tried: Sequence[Source]) -> list[Source]:
        sources = (self.sources.get(device_id) for device_id in devices)
        return [source for source in sources if source is not None and source not in tried]
