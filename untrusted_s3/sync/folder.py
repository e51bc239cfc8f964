"""One folder of the store in a running gateway: its state and log, what is pending, and who is told of changes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import time
from collections import deque
from pathlib import Path

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, StateDamaged, StoreError
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.entry import Entry, PeerCursor
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.index.segment_pace import SegmentPace
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import LogSettings, ObjectSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, folder_segment
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.puller import Puller

_logger = structlog.get_logger()


def _local_directory(state_directory: Path, record: FolderRecord) -> Path:
    """Where the local files of a folder lie. What is kept of a removed folder with the same ID goes."""
    base = state_directory / folder_segment(record.folder_id)
    own = base / f"{record.index_id:016x}"
    for other in base.glob("*"):
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


class Folder:
    """A folder that is open: `await open()` first, then `run()` for as long as the gateway lives."""

    def __init__(
        self,
        record: FolderRecord,
        bucket: Bucket,
        own_id: DeviceID,
        state_directory: Path,
        budget: ByteBudget,
        uploads: asyncio.Semaphore,
        counters: Counters,
    ) -> None:
        self.record = record
        self.keys = FolderKeys.of(record.folder_id)
        self.error: str | None = None
        directory = _local_directory(state_directory, record)
        self._damage = asyncio.Event()
        self.state = FolderState(directory / "state.sqlite", self._damage.set)
        self.pending = PendingIndex(directory / "pending.sqlite", self._damage.set)
        settings = LogSettings(
            segment_cost=limits.SEGMENT_COST,
            checkpoint_cost=limits.CHECKPOINT_COST,
            checkpoint_share=limits.CHECKPOINT_SHARE,
        )
        self._log = FolderLog(bucket, self.keys, self.state, own_id, settings)
        writer = ObjectWriter(bucket, self.keys, budget, uploads, counters, ObjectSettings())
        self.puller = Puller(record.folder_id, self.state, self.pending, writer, self._commit, counters)
        self._counters = counters
        self._pace = SegmentPace()
        self._ready: deque[Entry] = deque()
        # Devices whose index we know from themselves, in this run; of others our memory may be out of date.
        self._heard: set[DeviceID] = set()
        self._committing = False
        self._commit_wanted = asyncio.Event()
        self._checkpoint_wanted = asyncio.Event()
        self._changed = asyncio.Condition()

    async def open(self) -> None:
        """Brings the state up to the end of the log. Raises StoreError, DataError or StateDamaged."""
        await self._log.load()

    def close(self) -> None:
        """Closes the local files."""
        self.state.close()
        self.pending.close()

    @property
    def damaged(self) -> bool:
        """Whether the local files cannot be used any more; then `discard` them and open the folder anew."""
        return self._damage.is_set()

    def discard(self) -> None:
        """Deletes the local files. Sessions may still hold the folder, so the files are not closed: what is deleted
        disappears with the last of them."""
        remove_database(self.state.path)
        remove_database(self.pending.path)

    @property
    def own_index(self) -> IndexState:
        """The index that all gateways on this store announce for the folder."""
        return IndexState(self.record.index_id, self.state.sequence)

    @property
    def syncing(self) -> bool:
        """Whether something is being brought in or written down."""
        return not self.puller.idle or bool(self._ready) or self._committing

    async def changed_since(self, sequence: int) -> None:
        """Waits until the folder has a sequence number above `sequence`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state.sequence > sequence)

    def object_key(self, entry: Entry) -> str:
        """The key of an entry's object; the entry must have one."""
        assert entry.stored is not None
        return self.keys.object(entry.file_info.name, entry.stored.content_hash)

    # Peers' indexes

    def peer_index(self, device_id: DeviceID, announced: IndexState) -> IndexState:
        """What we know of a peer's index, given the one it announces now; with another index, nothing."""
        self._heard.add(device_id)
        received = self.pending.received(device_id)
        if received.index_id == announced.index_id != 0:
            return received
        cursor = self.state.cursor(device_id)
        if cursor.index_id != announced.index_id or announced.index_id == 0:
            cursor = IndexState(announced.index_id, 0)
        self.pending.start(device_id, cursor)
        return cursor

    # The log

    def _commit(self, entry: Entry) -> None:
        self._ready.append(entry)
        self._commit_wanted.set()

    async def run(self) -> None:
        """Pulls, appends to the log, follows what other gateways append, and writes checkpoints; until cancelled, or
        until a local file is `damaged`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_when_damaged())
            group.create_task(self.puller.run())
            group.create_task(self._append_entries())
            group.create_task(self._follow_log())
            group.create_task(self._write_checkpoints())

    async def _end_when_damaged(self) -> None:
        await self._damage.wait()
        raise StateDamaged("a file of the local state is damaged")

    async def drain(self) -> None:
        """Writes down what is ready, and how far each peer's index is handled, before a stop."""
        while self._ready:
            await self._append_some()
        await self._append_cursors()

    async def _append_entries(self) -> None:
        delay = 0.0
        while True:
            await self._commit_wanted.wait()
            await asyncio.sleep(delay)
            await self._gather_entries()
            try:
                await self._append_some()
                delay = 0.0
            except (StoreError, DataError) as error:
                self.error = f"the log cannot be written: {error}"
                _logger.error("cannot append to the log, trying again", folder=self.record.folder_id, error=str(error))
                delay = min(max(2 * delay, limits.SEGMENT_INTERVAL), limits.MAX_APPEND_DELAY)

    async def _gather_entries(self) -> None:
        """Waits for more entries, which makes few large segments of many small ones; not longer than until a segment is
        full or nothing more is under way, if it is not too soon after the segments before."""
        now = asyncio.get_running_loop().time
        earliest = now() + self._pace.delay
        latest = max(earliest, now() + limits.SEGMENT_INTERVAL)
        while len(self._ready) < limits.SEGMENT_ENTRIES:
            until = latest if self.puller.in_work > len(self._ready) else earliest
            if now() >= until:
                return
            self._commit_wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._commit_wanted.wait()

    async def _append_some(self) -> None:
        entries = self._take_batch()
        self._committing = True
        try:
            handled = self._handled_by(entries)
            if await self._log.append(entries, self._moved_cursors(handled)):
                self._counters.segments_appended.inc()
                self._pace.appended()
        except BaseException:
            self._ready.extendleft(reversed(entries))
            raise
        finally:
            self._committing = False
            if self._ready:
                self._commit_wanted.set()
        self.error = None
        self.pending.remove(handled)
        for entry in entries:
            self.puller.committed(entry.file_info.name)
        await self._notify()
        if self._log.checkpoint_due:
            self._checkpoint_wanted.set()

    def _take_batch(self) -> list[Entry]:
        self._commit_wanted.clear()
        entries: list[Entry] = []
        size = 0
        while self._ready and len(entries) < limits.SEGMENT_ENTRIES and size < limits.SEGMENT_SIZE:
            entries.append(self._ready.popleft())
            size += len(entries[-1].file_info.raw)
        return entries

    def _handled_by(self, entries: list[Entry]) -> list[Pending]:
        """What is pending and needs no more handling once these entries are in the log."""
        return [
            pending
            for entry in entries
            for pending in self.pending.of_name(entry.file_info.name)
            if not is_newer(pending.file_info.message.version, entry.file_info.message.version)
        ]

    def _moved_cursors(self, handled: list[Pending]) -> list[PeerCursor]:
        by_device: dict[DeviceID, set[int]] = {}
        for pending in handled:
            by_device.setdefault(pending.device_id, set()).add(pending.sequence)
        cursors = []
        for device_id in self._heard:
            reached = self.pending.handled(device_id, by_device.get(device_id, ()))
            known = self.state.cursor(device_id)
            moved = reached.index_id != known.index_id or reached.max_sequence > known.max_sequence
            if reached.index_id and reached.max_sequence > 0 and moved:
                cursors.append(PeerCursor(device_id, reached.index_id, reached.max_sequence))
        return cursors

    async def _append_cursors(self) -> None:
        cursors = self._moved_cursors([])
        if cursors and await self._log.append([], cursors):
            self._counters.segments_appended.inc()

    async def _follow_log(self) -> None:
        last_cursors = time.monotonic()
        while True:
            await asyncio.sleep(limits.LOG_POLL_INTERVAL)
            try:
                if await self._log.refresh():
                    await self._notify()
                if not self.syncing and time.monotonic() - last_cursors > limits.CURSOR_INTERVAL:
                    last_cursors = time.monotonic()
                    await self._append_cursors()
                if not self._ready:  # else it is for the next append to tell
                    self.error = None
            except (StoreError, DataError) as error:
                self.error = f"the log cannot be followed: {error}"
                _logger.warning("cannot follow the log", folder=self.record.folder_id, error=str(error))

    async def _write_checkpoints(self) -> None:
        while True:
            await self._checkpoint_wanted.wait()
            self._checkpoint_wanted.clear()
            try:
                await self._log.checkpoint_where_due()
            except (StoreError, sqlite3.Error) as error:
                # SQLite's where the state was loaded anew under our hands; the next checkpoint will do.
                _logger.warning("cannot write a checkpoint", folder=self.record.folder_id, error=str(error))
                if not self.state.path.exists():
                    self._damage.set()  # somebody has deleted it: it serves on, but cannot be copied

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
