"""The scheduler of a folder's pulls: which of the pending files are brought in next.

Entries are taken from the pending index in the order of the announcing device's sequence numbers, so that its cursor
advances. Deletions and directories have no data and go straight to the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import structlog

from untrusted_s3.accounts import Share
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo, memory_size
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
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import SyncSettings
from untrusted_s3.supervisor import TaskSet
from untrusted_s3.sync.claiming import Claiming
from untrusted_s3.sync.failures import Failure, Failures
from untrusted_s3.sync.file_data import FileData
from untrusted_s3.sync.large_entries import LargeEntries
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.pending_queues import PendingQueues
from untrusted_s3.sync.precedence import Precedence
from untrusted_s3.sync.pull_slots import DeviceSlots, EntryInWork, PullSlots
from untrusted_s3.sync.quota import FolderQuota
from untrusted_s3.sync.sources import Source, Sources
from untrusted_s3.sync.store_trouble import StoreTrouble

_logger = structlog.get_logger()
_LOGGED_NAME_LENGTH = 40


class Puller:
    """Brings in the pending files of one folder.

    Attributes:
        sources: The connected peers that share the folder.
        error: The last error of the store, or None after a success.
        quota: What the folder may add to the store.
    """

    def __init__(
        self,
        folder_id: str,
        state: FolderState,
        pending: PendingIndex,
        writer: ObjectWriter,
        commit: Callable[[Pending, Entry], None],
        counters: Counters,
        settings: SyncSettings,
        memory: SyncMemory,
        sources: Sources,
        claiming: Claiming,
        quota: FolderQuota | None = None,
    ) -> None:
        """Make a puller that hands each finished entry to `commit`, for the log."""
        self.sources = sources
        self.error: str | None = None
        self._folder_id = folder_id
        self._state = state
        self._pending = pending
        self._writer = writer
        self._commit = commit
        self._counters = counters
        self._settings = settings
        self._large_work = memory.large_work
        self._slots = PullSlots(settings, memory.in_work, memory.large_in_work)
        self._in_work: dict[bytes, EntryInWork] = {}  # by name hash
        self._failures = Failures(settings)
        self._precedence = Precedence(claiming, pending, self.sources, self._failures, settings)
        self._data = FileData(state, writer, sources, self._precedence, LargeEntries(state, memory, settings))
        self._store_trouble = StoreTrouble(settings, self._try_store_again)
        self.quota = quota if quota is not None else FolderQuota(folder_id, state)
        self._pulls = TaskSet()
        # By name hash: pulls of versions that untrusted devices announce.
        self._untrusted_pulls: dict[bytes, asyncio.Task[None]] = {}
        self._memory_waits = TaskSet()
        self._queues = PendingQueues(pending, claiming.expect)
        self._wake = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        self._last_logged = float("-inf")
        self._draining = self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._in_work

    @property
    def in_work(self) -> int:
        """The number of entries that are under way and not in the log yet."""
        return len(self._in_work)

    def has_in_work(self, key: bytes) -> bool:
        """Return whether an entry of the name with this hash is under way and not in the log yet."""
        return key in self._in_work

    @property
    def memory_in_work(self) -> int:
        """The bytes of their file infos."""
        return self._slots.memory_used

    @property
    def failing(self) -> tuple[int, Failure | None]:
        """The number of files that could not be pulled and are tried again, and one of them."""
        if not self._pending.totals[0]:
            return 0, None
        return len(self._failures), next(iter(self._failures), None)

    def add_source(self, device_id: DeviceID, source: Source, *, trusted: bool = True, gateway: bool = False) -> None:
        """Add a connected peer that shares the folder, as in `Sources.add`."""
        self.sources.add(device_id, source, trusted=trusted, gateway=gateway)
        self._failures.release_all()  # it may have what others lack
        self.rescan()

    def remove_source(self, device_id: DeviceID, source: Source) -> None:
        """Remove a peer that has disconnected or no longer shares the folder."""
        if self.sources.remove(device_id, source):
            self.rescan()  # an older version of another source may be the newest now

    def wake(self) -> None:
        """Look for new work."""
        self._wake.set()

    def rescan(self) -> None:
        """Look at all pending entries again."""
        self._queues.read_again()
        self._wake.set()

    def look_at_quota(self) -> None:
        """Look whether files may come in that wait for room, or for the limits to be known."""
        self._wake.set()
        if not self.quota.reached:
            return
        looked_at_all = not any(map(self._queues.of, self.sources.connected))
        if self.quota.look(self._pending.totals[0], _loop_time(), looked_at_all=looked_at_all):
            self.rescan()

    def rescan_from(self, device_id: DeviceID, sequence: int) -> None:
        """Look at a device's pending entries again from a sequence number on: one came later than higher ones."""
        self._queues.read_again_from(device_id, sequence)
        self._wake.set()

    def committed(self, key: bytes, more: bool) -> None:
        """Note that the entry that was under way for a name hash is in the log.

        `more` says whether anything else is pending under the name; a newer version may then begin.
        """
        self._leave(key)
        others = self._pending.of_name(key) if more else []
        self._failures.keep(key, {other.version for other in others})
        if any(map(self._precedence.is_wanted, others)):
            self.rescan()
        self._wake.set()

    async def drain(self) -> None:
        """Begin nothing more, and wait for what is under way: of large files, for the parts that are under way.

        The wait ends after `drain_timeout`.
        """
        self._draining = True
        self._writer.drain()
        await self._pulls.join(self._settings.drain_timeout)

    def close(self) -> None:
        """Leave the accounts. Nothing must be under way, and the puller must not be used after that."""
        self._closed = True
        self._slots.close()

    async def run(self) -> None:
        """Pull until cancelled, then cancel the pulls under way."""
        self.rescan()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._start_some()
                await asyncio.sleep(0)
        finally:
            await self._memory_waits.cancel()
            await self._pulls.cancel()
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._failures.clear()
            self._store_trouble.forget()

    def _start_some(self) -> None:
        """Take some of each source's pending entries into work. Wake up again where there may be more at once."""
        if self._draining:
            return
        self._slots.allow_small_files(self._settings.concurrent_small_files + self._writer.more_uploads)
        for slots in self._slots:
            while slots.waiting and slots.large.fits(1) and not self._store_trouble.present:
                entry = slots.waiting.popleft()
                self._start(entry, slots.large, self._pull_large(entry, self._in_work[entry.name_hash]))
        for device_id in list(self.sources.connected):
            if self._start_some_of(device_id):
                self._wake.set()
        if self.error is not None and self.idle and not self._something_failed_here:
            self.error = None  # what failed is no longer wanted, or its source is gone

    @property
    def _something_failed_here(self) -> bool:
        """Whether anything waits for its next try that failed because of the store, not of the peers."""
        if self._store_trouble.awaits_retry:
            return True
        return any(isinstance(failure.error, StoreError | DataError) for failure in self._failures)

    def _start_some_of(self, device_id: DeviceID) -> bool:
        queue = self._queues.of(device_id)
        slots = self._slots.of(device_id)
        handled = []
        taken = 0
        while queue and self._has_room(slots):
            if queue[0].has_data and not self.quota.are_known():
                break  # `look_at_quota` goes on
            if not self._is_large(queue[0]) and not slots.memory.fits(memory_size(queue[0].file_info_size)):
                self._await_memory(slots, memory_size(queue[0].file_info_size))
                break
            entry = queue.popleft()
            taken += 1
            if not self._precedence.is_wanted(entry):
                self._failures.drop(entry.name_hash, entry.version)
                handled.append(entry)
            elif not self._has_to_wait(entry) and self._may_come(entry):
                self._take(entry, slots)
        if handled:
            self._pending.remove(handled)
        return taken > 0 and self._has_room(slots)

    def _may_come(self, entry: Pending) -> bool:
        """Return whether no quota keeps an entry back; `look_at_quota` finds it again."""
        return not entry.has_data or self.quota.reserve(entry, lambda: self._data.is_there(entry))

    def _has_room(self, slots: DeviceSlots) -> bool:
        return not self._store_trouble.present and slots.has_room

    def _is_large(self, entry: Pending) -> bool:
        return entry.has_data and self._writer.is_large(entry.size)

    def _await_memory(self, slots: DeviceSlots, size: int) -> None:
        """Wake up when there is memory for a file info of this size."""

        async def wait() -> None:
            try:
                await slots.memory.acquire(size)
                slots.memory.release(size)
            finally:
                slots.memory_awaited = False
                self._wake.set()

        if not slots.memory_awaited:
            slots.memory_awaited = True
            self._memory_waits.start(wait())

    def _has_to_wait(self, entry: Pending) -> bool:
        """Return whether something else of this name comes first; a rescan then finds the entry again."""
        work = self._in_work.get(entry.name_hash)
        if work is not None and (work.trusted or not self.sources.is_trusted(entry.device_id)):
            return True
        if self._store_trouble.keeps(entry) or self._failures.waits(entry, _loop_time()):
            return True
        if self._precedence.comes_later(entry):
            return True
        if work is not None and self._precedence.is_preferred(entry):
            self._make_way(entry, work)
        return entry.name_hash in self._in_work

    def _make_way(self, entry: Pending, work: EntryInWork) -> None:
        """End what is under way for an untrusted device under the name of a trusted device's entry."""
        pull = self._untrusted_pulls.get(entry.name_hash)
        if pull is not None:
            pull.cancel()
            return
        for waiting in work.slots.waiting:
            if waiting.name_hash == entry.name_hash:
                work.slots.waiting.remove(waiting)
                self._leave(entry.name_hash)
                self.rescan()
                return

    def _take(self, entry: Pending, slots: DeviceSlots) -> None:
        trusted = self.sources.is_trusted(entry.device_id)
        index_id = self._pending.folder_index_id
        if self._is_large(entry):
            slots.entries.charge(1)
            self._in_work[entry.name_hash] = EntryInWork(index_id, slots, slots.large_memory, trusted=trusted)
            slots.waiting.append(entry)
            self._wake.set()
            return
        file_info = self._pending.file_info(entry)
        if file_info is None:
            self.quota.release(entry.name_hash)
            return  # announced again since the queue was read; the new entry comes later
        size = memory_size(entry.file_info_size)
        slots.entries.charge(1)
        slots.memory.charge(size)
        self._in_work[entry.name_hash] = EntryInWork(index_id, slots, slots.memory, size, trusted=trusted)
        if entry.has_data:
            self._start(entry, slots.small, self._pull(entry, file_info))
        else:
            self._commit(entry, Entry(file_info, None, entry.device_id))

    def _leave(self, key: bytes) -> None:
        self.quota.release(key)
        work = self._in_work.pop(key, None)
        if work is not None:
            work.slots.entries.release(1)
            work.memory.release(work.size)

    def _start(self, entry: Pending, slot: Share, pull: Coroutine[None, None, None]) -> None:
        slot.charge(1)
        task = self._pulls.start(pull, partial(self._ended, entry.name_hash, slot))
        if not self._in_work[entry.name_hash].trusted:
            self._untrusted_pulls[entry.name_hash] = task

    def _ended(self, key: bytes, slot: Share, task: asyncio.Task[None]) -> None:
        if self._closed:
            return  # the accounts are left already; this comes one turn of the event loop after the end of the pull
        slot.release(1)
        of_untrusted = self._untrusted_pulls.get(key) is task
        if of_untrusted:
            del self._untrusted_pulls[key]
        if task.cancelled():
            self._leave(key)
            if of_untrusted:
                self.rescan()  # it may have made way
        self._wake.set()

    async def _pull_large(self, entry: Pending, work: EntryInWork) -> None:
        size = memory_size(entry.file_info_size)
        await work.memory.acquire(size)
        work.size = size
        try:
            file_info = await self._large_work.run(
                entry.device_id, entry.file_info_size, self._pending.file_info_reader(entry)
            )
        except StateDamaged as error:
            self._pending.damaged(str(error))
            self._leave(entry.name_hash)  # the folder is opened again
            return
        if file_info is None:
            self._leave(entry.name_hash)
            self.rescan()
            return
        await self._pull(entry, file_info)

    async def _pull(self, entry: Pending, file_info: FileInfo) -> None:
        try:
            change = await self._data.bring(entry, file_info)
            self._succeeded(entry)
            if self._in_work[entry.name_hash].index_id == self._pending.folder_index_id:
                self._commit(entry, change)
            else:
                # The folder's index was renewed meanwhile, perhaps because this entry is not to be there.
                self._leave(entry.name_hash)
                self.rescan()
        except WriteStopped:
            self._leave(entry.name_hash)
            self.rescan()
        except (BlockUnavailable, StoreError, DataError, StateDamaged) as error:
            self._failed(entry, file_info.name, error)
        except Exception as error:
            _logger.exception(
                "internal error in a pull", folder=self._folder_id, name=file_info.name[:_LOGGED_NAME_LENGTH]
            )
            self._failed(entry, file_info.name, error)

    def _succeeded(self, entry: Pending) -> None:
        self.error = None
        if self._store_trouble.succeeded(entry):
            self._wake.set()

    def _failed(self, entry: Pending, name: str, error: Exception) -> None:
        self._leave(entry.name_hash)
        self._counters.pull_failures.inc()
        if isinstance(error, StoreError | DataError):
            self.error = str(error)
        if self._precedence.is_outdated(entry):
            # The file changed while it was under way: the newer version is due, not this one.
            self.rescan()
            return
        store_failed = isinstance(error, StoreUnreachable | StoreRefused)
        store_failed = store_failed and not self._store_trouble.concerns_only(entry)
        self._log_failure(name, error, store_failed=store_failed)
        if store_failed:
            self._store_trouble.begin(entry)
        else:
            others = self._pending.of_name(entry.name_hash)
            devices = {other.device_id for other in others if other.version == entry.version}
            devices = devices & self.sources.connected.keys() | {entry.device_id}
            self._failures.add(entry, name, devices, error, _loop_time())
            self._schedule_retry()
            if any(other.version != entry.version for other in others):
                self.rescan()  # another version no longer has to wait

    def _log_failure(self, name: str, error: Exception, *, store_failed: bool) -> None:
        """Log one of many failures that come together, as when a directory was deleted at the peer."""
        now = _loop_time()
        due = now >= self._last_logged + self._settings.pull_retry_interval
        if self.sources.connected and (due or store_failed) and not self._store_trouble.present:
            self._last_logged = now
            _logger.warning("pull failed", folder=self._folder_id, name=name[:_LOGGED_NAME_LENGTH], error=str(error))

    def _schedule_retry(self) -> None:
        due = self._failures.next_due
        if self._retry is not None:
            if due is not None and self._retry.when() <= due:
                return
            self._retry.cancel()
            self._retry = None
        if due is not None:
            self._retry = asyncio.get_running_loop().call_at(due, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        released = self._failures.release(_loop_time())
        for key in released:
            # A device may have announced something else, or be gone.
            self._failures.keep(key, {other.version for other in self._pending.of_name(key)})
        self._schedule_retry()
        if self.sources.connected and released:
            _logger.info("retrying failed pulls", folder=self._folder_id, files=len(released))
        if released:
            self.rescan()

    def _try_store_again(self, files: int) -> None:
        if self.sources.connected and files:
            _logger.info("retrying failed pulls", folder=self._folder_id, files=files)
        self.rescan()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
