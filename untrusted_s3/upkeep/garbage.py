"""Garbage collection: deletes the objects of a folder that its log no longer names (store/garbage.py has the rules).

A turn first deletes what was a candidate for the grace time and is still not named, then looks for new candidates and
writes them down. Several gateways may do it at once; what one has done shows in the records, so that the others need
not do it again.

Both read the whole log. So a turn does neither where nothing is a candidate and the log has not changed since the last
look (store/garbage_look.py), but for a look once a week: what interrupted transfers leave changes no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from untrusted_s3.errors import DataError
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import MAX_CANDIDATES
from untrusted_s3.store.garbage import (
    GARBAGE_RULES,
    Candidate,
    GarbageRecord,
    GarbageRules,
    ListedRecord,
    ListedRecords,
    Sweep,
    list_garbage,
    read_garbage,
    write_garbage,
    write_swept,
)
from untrusted_s3.store.garbage_look import Look, list_extent, read_look, write_look
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.live import Leaving, ObjectSet, load_live, nothing_leaves

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageSettings:
    """How garbage is collected.

    Attributes:
        interval: How long after the last look for candidates the next one is due, also if another gateway took it.
        longest_interval: The same where the log has not changed, and the most for a long log.
        segments_a_look: Of a longer log, a look is as much seldomer.
        concurrent_deletions: How many objects are deleted at once.
        deletions_per_second: The most objects that are deleted in a second; 0 for no limit.
        most_candidates: The most candidates of a folder; the rest has its turn after these are deleted.
    """

    interval: float = 0.9 * DAY
    longest_interval: float = 7 * DAY
    segments_a_look: int = 20_000
    concurrent_deletions: int = 16
    deletions_per_second: float = 100.0
    most_candidates: int = 2_000_000


_SETTINGS = GarbageSettings()


@dataclass(slots=True)
class Amount:
    """A number of objects and their bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more object."""
        self.objects += 1
        self.bytes += size

    def to_json(self) -> dict[str, int]:
        """Return the JSON object."""
        return {"objects": self.objects, "bytes": self.bytes}


@dataclass(slots=True)
class Collected:
    """What a turn has done in a folder.

    Attributes:
        deleted: What was deleted.
        due: What would have been deleted, had this not been a look only.
        found: Candidates that were found and written down, or would have been.
        waiting: Candidates of earlier looks whose grace time is not over.
        named: How many former candidates are named by the log again, and stay.
        listed: All objects of the folder.
        unknown: Keys among the objects that this program does not write. They stay.
        next_in: Seconds until the first of the waiting ones may be deleted; None without any.
        looked: Whether all objects were listed.
    """

    deleted: Amount = field(default_factory=Amount)
    due: Amount = field(default_factory=Amount)
    found: Amount = field(default_factory=Amount)
    waiting: Amount = field(default_factory=Amount)
    named: int = 0
    listed: Amount = field(default_factory=Amount)
    unknown: int = 0
    next_in: float | None = None
    looked: bool = False


class GarbageCollector:
    """Collects the garbage of one folder.

    Attributes:
        result: What the turn under way, or the last one, has done.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        *,
        clock: Callable[[], float] = time.time,
        rules: GarbageRules = GARBAGE_RULES,
        settings: GarbageSettings = _SETTINGS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        directory: Path | None = None,
    ) -> None:
        """`clock` gives seconds since 1970 UTC. It is the one by which requests are signed.

        `directory` is for temporary files.
        """
        self.result = Collected()
        self._bucket = bucket
        self._keys = keys
        self._clock = clock
        self._rules = rules
        self._settings = settings
        self._sleep = sleep
        self._directory = directory
        self._asked = 0.0
        self._next_deletion = 0.0

    async def look(self, leaving: Leaving = nothing_leaves) -> Collected:
        """Say what a turn would do, and change nothing.

        `leaving` is what would be cleaned up of the log before (`live.load_live`). Raises DataError if the log is
        damaged, and StoreError.
        """
        return await self._turn(leaving, dry_run=True, always=True)

    async def collect(self, *, always: bool = False) -> Collected:
        """Delete what may be deleted, and write down candidates if a look for them is due, or `always`.

        Raises DataError if the log is damaged, and StoreError. Then a part may be done.
        """
        return await self._turn(nothing_leaves, dry_run=False, always=always)

    async def _turn(self, leaving: Leaving, *, dry_run: bool, always: bool) -> Collected:
        self.result = Collected()
        records = await self._list()
        old = [one for one in records if one.age > self._kept_for]
        if not dry_run:
            await self._forget(old)
        due = [one for one in records if self._may_be_swept(one)]
        if not await self._have_candidates(due):
            due = []
        # What was not swept in time has to be found once more.
        looks = always or any(not one.is_swept for one in old)
        if not looks and records.look_age >= self._settings.interval:
            # The whole log is read for what is due, so that a look costs little more.
            looks = bool(due) or await self._is_look_due()
        if not due and not looks:
            return self.result
        began, extent = int(self._bucket.now()), await list_extent(self._bucket, self._keys) if looks else None
        with contextlib.ExitStack() as sets:
            live, known, gone = (sets.enter_context(contextlib.closing(ObjectSet())) for _ in range(3))
            await load_live(self._bucket, self._keys, live, leaving=leaving, directory=self._directory)
            count = await self._load_candidates(records, known)
            for record in due:
                await self._sweep(record, live, gone, dry_run)
            if extent is not None:
                is_whole = await self._mark(live, known, self._settings.most_candidates - count, dry_run)
                if not dry_run:
                    look = Look(began, extent.digest if is_whole else "")
                    await write_look(self._bucket, self._keys, look)
        return self.result

    # When to look

    async def _have_candidates(self, due: Sequence[ListedRecord]) -> bool:
        for listed in due:
            record = await self._read(listed)
            if record is not None and record.candidates:
                return True
        return False

    async def _is_look_due(self) -> bool:
        """Return whether a look may find something. If not, say so in the store, so that nobody asks again so soon."""
        try:
            look = await read_look(self._bucket, self._keys)
        except DataError as error:
            _logger.error("record of garbage unreadable", error=str(error))
            return True
        if look is None:
            return True
        age = self._bucket.now() - look.time
        extent = await list_extent(self._bucket, self._keys)
        interval = self._settings.interval * max(1.0, extent.segments / self._settings.segments_a_look)
        if extent.digest == look.log:
            interval = self._settings.longest_interval
        if age >= min(interval, self._settings.longest_interval):
            return True
        await write_look(self._bucket, self._keys, look)
        return False

    # What is kept when

    async def _list(self) -> ListedRecords:
        self._asked = self._clock()
        return await list_garbage(self._bucket, self._keys)

    @property
    def _kept_for(self) -> float:
        return self._rules.grace + self._rules.sweep + self._rules.margin

    def _may_be_swept(self, record: ListedRecord) -> bool:
        """Return whether the candidates of a record may be deleted now. By our clock that ends in time (rule 2)."""
        since = self._clock() - self._asked
        if record.is_swept or record.age < self._rules.grace or since < 0:
            return False
        return record.age + since < self._rules.grace + self._rules.sweep

    async def _forget(self, records: Sequence[ListedRecord]) -> None:
        for record in records:
            if record.is_swept:
                await self._bucket.delete(self._keys.garbage_swept(record.record_id))
            await self._bucket.delete(self._keys.garbage_record(record.record_id))

    async def _read(self, record: ListedRecord) -> GarbageRecord | None:
        try:
            return await read_garbage(self._bucket, self._keys, record.record_id)
        except DataError as error:
            _logger.error("record of garbage unreadable", error=str(error))
            return None

    async def _load_candidates(self, records: Sequence[ListedRecord], known: ObjectSet) -> int:
        """Add what is a candidate already to `known`, and return how much. Count what waits."""
        count = 0
        for listed in records:
            if listed.age > self._kept_for:
                continue
            record = await self._read(listed)
            if record is None:
                continue
            known.add(record.candidates)
            count += len(record.candidates)
            if listed.age < self._rules.grace and record.candidates:
                for one in record.candidates:
                    self.result.waiting.add(one.size)
                left = self._rules.grace - listed.age
                self.result.next_in = left if self.result.next_in is None else min(self.result.next_in, left)
        return count

    # Sweeping

    async def _sweep(self, listed: ListedRecord, live: ObjectSet, gone: ObjectSet, dry_run: bool) -> None:
        """Delete what a record has, but what is `gone`: two gateways that looked at once have written it down twice."""
        record = await self._read(listed)
        if record is None:
            return
        unnamed = [one for one in record.candidates if not live.has(one.name_hash, one.object_name)]
        named = len(record.candidates) - len(unnamed)
        self.result.named += named
        unnamed = [one for one in unnamed if not gone.has(one.name_hash, one.object_name)]
        gone.add(unnamed)
        deleted = Amount()
        for start in range(0, len(unnamed), self._settings.concurrent_deletions):
            batch = unnamed[start : start + self._settings.concurrent_deletions]
            if dry_run:
                for one in batch:
                    self.result.due.add(one.size)
                continue
            await self._keep_pace(len(batch))
            # A record whose time is over has its objects found again.
            if not self._may_be_swept(listed):
                return
            await asyncio.gather(*map(self._delete, batch))
            for one in batch:
                deleted.add(one.size)
                self.result.deleted.add(one.size)
        if not dry_run:
            sweep = Sweep(int(self._bucket.now()), deleted.objects, deleted.bytes, named)
            await write_swept(self._bucket, self._keys, listed.record_id, sweep)

    async def _delete(self, candidate: Candidate) -> None:
        key = self._keys.object_of(candidate.name_hash, candidate.object_name)
        await self._bucket.delete(key, lifetime=self._rules.lifetime)

    async def _keep_pace(self, count: int) -> None:
        rate = self._settings.deletions_per_second
        if not rate:
            return
        now = asyncio.get_running_loop().time()
        if self._next_deletion > now:
            await self._sleep(self._next_deletion - now)
        self._next_deletion = max(now, self._next_deletion) + count / rate

    # Marking

    async def _mark(self, live: ObjectSet, known: ObjectSet, room: int, dry_run: bool) -> bool:
        """Write down what is not named. Return whether all of it was, or is already.

        What is young stays out: its entry may be on its way.
        """
        found: list[Candidate] = []
        is_whole = True
        async for candidate, age in self._unnamed(live):
            if self.result.found.objects >= room:
                is_whole = False
                break
            if age < self._rules.grace:
                is_whole = False
                continue
            if known.has(candidate.name_hash, candidate.object_name):
                continue
            found.append(candidate)
            self.result.found.add(candidate.size)
            if len(found) == MAX_CANDIDATES and not dry_run:
                await self._write(found)
                found.clear()
        self.result.looked = True
        if found and not dry_run:
            await self._write(found)
        return is_whole

    async def _write(self, found: Sequence[Candidate]) -> None:
        await write_garbage(self._bucket, self._keys, GarbageRecord.new(self._bucket.now(), found))

    async def _unnamed(self, live: ObjectSet) -> AsyncIterator[tuple[Candidate, float]]:
        """Yield the objects that the log does not name, with their ages."""
        async for item in self._bucket.list(self._keys.objects):
            parsed = self._keys.parse_object(item.key)
            if parsed is None:
                self.result.unknown += 1
                continue
            self.result.listed.add(item.size)
            if not live.has(*parsed):
                yield Candidate(*parsed, item.size), item.age
