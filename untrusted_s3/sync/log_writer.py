"""The writer of a folder's log: it gathers finished entries into segments, follows other gateways' segments, and writes
checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.counters import Counters
from untrusted_s3.errors import (
    DataError,
    IndexClaimed,
    LocalDiskFailed,
    LogWentBack,
    SegmentDamaged,
    SegmentsMissing,
    StateDamaged,
    StoreError,
)
from untrusted_s3.index.changes import Change, LateConfirmation, Oblivion
from untrusted_s3.index.entry import Confirmation, Entry, PeerCursor
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.index.renewal import Plan
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.segment_pace import SegmentPace
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.handled_entries import HandledEntries
from untrusted_s3.sync.looks import Check, Looks

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a device says that it knows of our index.

    Attributes:
        sequence: The last sequence number that it knows.
        without_ours: The same, less the entries that had been written to the log here.
    """

    sequence: int
    without_ours: int


class LogWriter:
    """Extends and follows the log of one folder.

    Attributes:
        error: Why the log cannot be written or followed, or None after a success.
    """

    def __init__(
        self,
        folder_id: str,
        log: FolderLog,
        state: FolderState,
        pending: PendingIndex,
        counters: Counters,
        settings: LogSettings,
        *,
        in_work: Callable[[], int],
        is_attended: Callable[[], bool],
        on_committed: Callable[[bytes, bool], None],
        on_damage: Callable[[], None],
        on_renewed: Callable[[], None],
        on_went_back: Callable[[DataError], None],
        is_trusted: Callable[[DeviceID], bool],
        is_gateway: Callable[[DeviceID], bool],
        had_chance: Callable[[DeviceID, int], bool],
    ) -> None:
        """Make a writer that is given entries by `add`.

        `in_work` returns how many entries are being pulled or wait here, `is_attended` whether anybody here is to hear
        of changes by other gateways. `on_committed` is called for each entry that the log has, with its name hash and
        whether anything else is pending under the name. `on_damage` is called when the state's file is gone or damaged,
        `on_renewed` when the folder's index has another id, and `on_went_back` when the store has lost or damaged a
        part of the log. `is_trusted` returns whether a device encrypts for us, `is_gateway` whether an untrusted one is
        a gateway too, and `had_chance` whether a device had time to take over what it is shown under a sequence number.
        """
        self.error: str | None = None
        self._folder_id = folder_id
        self._log = log
        self._state = state
        self._pending = pending
        self._counters = counters
        self._settings = settings
        self._in_work = in_work
        self._on_committed = on_committed
        self._on_damage = on_damage
        self._on_renewed = on_renewed
        self._on_went_back = on_went_back
        self._handled = HandledEntries(state, pending, is_trusted, is_gateway, had_chance)
        self._index_id = state.index_id
        self._claim: _Claim | None = None
        self._looks = Looks(settings, lambda: is_attended() or bool(in_work()) or self.busy, lambda: not log.is_checked)
        self._pace = SegmentPace(settings, _loop_time)
        self._ready: deque[tuple[Pending, Entry]] = deque()
        # Changes of claims that need no transfer, and by device the sequence numbers that it confirms.
        self._changes: deque[Change] = deque()
        self._confirmed: dict[DeviceID, list[int]] = {}
        self._confirming: list[dict[DeviceID, list[int]]] = []  # the same, of the appends that are under way
        self._appends = 0  # under way
        self._appending = False
        self._wanted = asyncio.Event()
        self._checkpoint_wanted = asyncio.Event()
        self._checkpoint_age = math.inf
        self._changed = asyncio.Condition()
        log.before_apply = self._keep_confirmed

    @property
    def heard(self) -> set[DeviceID]:
        """The devices whose index states are known from themselves in this run: their cursors are written."""
        return self._handled.heard

    @property
    def busy(self) -> bool:
        """Whether entries wait for the log or are being written to it."""
        return bool(self._ready or self._changes) or self._appending

    def add(self, pending: Pending, entry: Entry) -> None:
        """Take a finished entry for the log, and the pending one that it was made from.

        The announcing device is the source of an entry that names none.
        """
        if entry.source is None:
            entry = replace(entry, source=pending.device_id)
        self._ready.append((pending, entry))
        self._wanted.set()

    def change(self, change: Change) -> None:
        """Take a change of claims for the log."""
        self._changes.append(change)
        self._wanted.set()

    def confirm(self, device_id: DeviceID, sequence: int) -> None:
        """Note for the log that a device announces what the folder has under a sequence number."""
        self._confirmed.setdefault(device_id, []).append(sequence)

    @property
    def time_of_day(self) -> float:
        """The time by the store's clock, in seconds since 1970 UTC."""
        return self._log.time_of_day

    def attend(self) -> None:
        """Note that somebody is to hear of changes from now on."""
        self._looks.attend()

    async def changed_since(self, sequence: int) -> None:
        """Wait until the folder has a sequence number above `sequence`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._state.sequence > sequence)

    def opened(self) -> None:
        """Note that the state is now that of the log."""
        self._index_id = self._state.index_id

    def claim(self, known: IndexState) -> None:
        """Note that a device says that it knows more of our index than the state has.

        Other gateways must have written the rest. If the log does not have it at the next look, beside what is written
        here meanwhile, the store has lost its end.
        """
        claim = _Claim(known.max_sequence, known.max_sequence - self._log.entries_written)
        if self._claim is None or claim.without_ours > self._claim.without_ours:
            self._claim = claim

    async def renew(self, plan: Plan) -> None:
        """Renew the log. Raises StoreError or DataError."""
        with self._minding_the_log():
            await self._log.renew(plan)
        await self._notify()

    async def begin_index(self, device_id: DeviceID, index_id: int) -> None:
        """Write that a device has another index than before, if it has: it has forgotten what it claimed and declined.

        What it announces in that index must come later. Raises StoreError or DataError.
        """
        if not index_id or self._state.known_index(device_id) in (None, index_id):
            return
        self._confirmed.pop(device_id, None)
        names = filter(None, map(self._state.disputed_name, self._state.disputed_sequences()))
        forgotten = [
            Oblivion(name.key, device_id, index_id)
            for name in names
            if device_id in name.claims.claimed or device_id in name.claims.declined
        ]
        with self._minding_the_log():
            await self._append(forgotten, [PeerCursor(device_id, index_id, 0)])
        await self._notify()

    async def flush(self) -> None:
        """Write what is ready, and how far each peer's index is handled. Raises StoreError or DataError."""
        while self._ready or self._changes:
            await self._append_some()
        await self._append_cursors()

    async def append_entries(self) -> None:
        """Append what `add` takes, until cancelled."""
        delay = 0.0
        while True:
            await self._wanted.wait()
            await asyncio.sleep(delay)
            await self._gather()
            try:
                await self._append_some()
                delay = 0.0
            except (StoreError, DataError, LocalDiskFailed) as error:
                self.error = f"the log cannot be written: {error}"
                _logger.error("log not written", folder=self._folder_id, error=str(error))
                delay = min(max(2 * delay, self._settings.segment_interval), self._settings.max_append_delay)

    async def follow(self) -> None:
        """Apply what other gateways append, and write cursors now and then, until cancelled."""
        self._looks.begin()
        last_cursors = _loop_time()
        while True:
            await self._looks.until_due()
            try:
                if await self._look(self._log.refresh()):
                    await self._notify()
                if (check := self._looks.due_check()) is not None and await self._look(self._check(check)):
                    await self._notify()
                self._check_claim()
                idle = not self._in_work() and not self.busy
                if idle:
                    self._pending.tidy()
                    self._state.tidy()
                if idle and _loop_time() - last_cursors > self._settings.cursor_interval:
                    last_cursors = _loop_time()
                    await self._append_cursors()
                if not self._ready:  # else the next append tells whether the log can be written
                    self.error = None
            except (StoreError, DataError, LocalDiskFailed) as error:
                self._looks.failed()
                self.error = f"the log cannot be followed: {error}"
                _logger.warning("log not read", folder=self._folder_id, error=str(error))

    async def _look(self, look: Awaitable[bool]) -> bool:
        with self._minding_the_log():
            return await look

    async def _check(self, check: Check) -> bool:
        if check is Check.LAST:
            return await self._log.check_last()
        return await self._log.check(whole=check is Check.WHOLE)

    def want_checkpoint(self, older_than: float) -> None:
        """Have a checkpoint written soon if the newest is older than so many seconds and the log has gone on since."""
        self._checkpoint_age = older_than
        self._checkpoint_wanted.set()

    async def write_checkpoints(self) -> None:
        """Write checkpoints when they are due, until cancelled."""
        while True:
            await self._checkpoint_wanted.wait()
            self._checkpoint_wanted.clear()
            age, self._checkpoint_age = self._checkpoint_age, math.inf
            try:
                await self._log.checkpoint_where_due(age)
            except (StoreError, StateDamaged, OSError, sqlite3.Error) as error:
                # SQLite fails when the state is replaced meanwhile, or the disk is full; the next checkpoint succeeds.
                _logger.warning("checkpoint not written", folder=self._folder_id, error=str(error))
                if isinstance(error, StateDamaged) or not self._state.path.exists():
                    self._on_damage()  # the open file still serves, but cannot be copied

    @contextlib.contextmanager
    def _minding_the_log(self) -> Iterator[None]:
        """Notice renewals, also those of other gateways, and losses and damage of the store."""
        try:
            yield
        except (LogWentBack, SegmentDamaged, SegmentsMissing) as error:
            self._on_went_back(error)
            raise
        finally:
            if self._state.index_id != self._index_id:
                self._on_renewed()  # first: if the local disk is full, it is called again
                self._index_id = self._state.index_id
                self._claim = None
                ready, self._ready = list(self._ready), deque()
                self._changes.clear()
                self._confirmed.clear()
                self._drop(ready)

    def _drop(self, batch: Sequence[tuple[Pending, Entry]]) -> None:
        """Let go of entries from before a renewal. Those whose devices are still there are announced again."""
        for pending, _ in batch:
            self._on_committed(pending.name_hash, True)

    def _check_claim(self) -> None:
        claim, self._claim = self._claim, None
        if claim is not None and claim.without_ours > self._state.sequence - self._log.entries_written:
            self._on_went_back(
                IndexClaimed(
                    f"a device knows the folder's index up to sequence {claim.sequence}, and the log lacks a part of"
                    " that: the store has lost its end",
                    self._index_id,
                    claim.sequence,
                    self._state.sequence,
                )
            )

    async def _gather(self) -> None:
        """Wait for more entries, so that many small entries share a segment.

        The wait ends when a segment is full, when nothing more is under way and the pace allows a segment, or after
        `segment_interval`.
        """
        now = _loop_time
        earliest = now() + self._pace.lone_delay
        latest = now() + max(self._pace.delay, self._settings.segment_interval)
        while len(self._ready) < self._settings.segment_entries:
            until = latest if self._in_work() > len(self._ready) else earliest
            if now() >= until:
                return
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wanted.wait()

    async def _append_some(self) -> None:
        batch = self._take_batch()
        changes = self._take_changes(batch)
        index_id = self._index_id
        self._appending = True
        try:
            # What has a condemned object, or one that is or may be deleted, does not get into the log and stays
            # pending, to be pulled again.
            await self._log.garbage.look(entry for _, entry in batch)
            usable = [one for one in batch if self._is_usable(one[1])]
            announced_by = self._pending.of_names([pending.name_hash for pending, _ in usable])
            handled = self._handled.handled_by(usable, announced_by)
            with self._minding_the_log():
                announced = self._handled.announcements(usable, announced_by, self.time_of_day)
                # Cursors pass nothing that is still to be written.
                cursors = self._handled.moved_cursors(handled) if not self._changes else []
                appended = await self._append([*announced, *changes], cursors)
            if appended:
                self._counters.segments_appended.inc()
                self._pace.appended(full=self._is_full(batch))
            done = self._pending.remove(handled)
        except BaseException:
            if self._index_id == index_id:
                self._ready.extendleft(reversed(batch))
                self._changes.extendleft(reversed(changes))
            else:
                self._drop(batch)
            raise
        finally:
            self._appending = False
            if self._ready or self._changes:
                self._wanted.set()
        self.error = None
        for pending, _ in batch:
            self._on_committed(pending.name_hash, pending.name_hash not in done)
        await self._notify()
        if self._log.checkpoint_due:
            self._checkpoint_wanted.set()

    def _take_batch(self) -> list[tuple[Pending, Entry]]:
        self._wanted.clear()
        batch: list[tuple[Pending, Entry]] = []
        size = 0
        while self._ready and len(batch) < self._settings.segment_entries and size < self._settings.segment_size:
            batch.append(self._ready.popleft())
            size += len(batch[-1][1].file_info.raw)
        return batch

    def _take_changes(self, batch: list[tuple[Pending, Entry]]) -> list[Change]:
        """Take changes of names that are not in the batch, at most one a name.

        What a change comes to is worked out for the state before the segment.
        """
        names = {pending.name_hash for pending, _ in batch}
        taken: list[Change] = []
        left: deque[Change] = deque()
        while self._changes and len(taken) < self._settings.segment_entries:
            change = self._changes.popleft()
            if change.key in names:
                left.append(change)
            else:
                names.add(change.key)
                taken.append(change)
        self._changes.extendleft(reversed(left))
        return taken

    def _is_usable(self, entry: Entry) -> bool:
        return not self._state.is_condemned(entry) and not self._log.garbage.keeps_out(entry)

    def _is_full(self, batch: list[tuple[Pending, Entry]]) -> bool:
        size = sum(len(entry.file_info.raw) for _, entry in batch)
        return len(batch) >= self._settings.segment_entries or size >= self._settings.segment_size

    async def _append_cursors(self) -> None:
        cursors = self._handled.moved_cursors([])
        if not cursors and not self._confirmed:
            return
        with self._minding_the_log():
            appended = await self._append([], cursors)
        if appended:
            self._counters.segments_appended.inc()

    async def _append(self, changes: Sequence[Change], cursors: list[PeerCursor]) -> bool:
        confirmed, self._confirmed = self._confirmed, {}
        self._confirming.append(confirmed)
        self._appends += 1
        confirmations = [Confirmation.of(device_id, sequences) for device_id, sequences in confirmed.items()]
        try:
            # The log may know of a renewal already while its end is still looked for.
            index_id = self._pending.folder_index_id
            appended = await self._log.append(changes, cursors, confirmations, index_id=index_id)
        except BaseException:
            for device_id, sequences in confirmed.items():
                self._confirmed.setdefault(device_id, []).extend(sequences)
            raise
        finally:
            self._confirming.remove(confirmed)
            self._appends -= 1
        if not self._changes and not self._appends:
            self._pending.noted_is_written(unless=self._confirmed.keys())
        return appended

    def _keep_confirmed(self, segment: Segment) -> None:
        """Note again what devices confirm of names to which a segment gives other sequence numbers."""
        waiting = [some for some in (self._confirmed, *self._confirming) if some]
        if not waiting or segment.renewal is not None:
            return
        told = {one.device_id: one.sequences for one in segment.confirmations}
        keys = (name_key(entry.file_info.name) for entry in segment.entries)
        ending = {sequence for sequence in map(self._state.sequence_of, keys) if sequence is not None}
        for device_id, sequences in itertools.chain.from_iterable(some.items() for some in waiting):
            for sequence in ending.intersection(sequences):
                if not any(sequence in some for some in told.get(device_id, ())):
                    self.change(LateConfirmation(self._state.row_at(sequence).entry, device_id))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
