"""Gateways that write, go back to old contents, stall and crash, beside collectors and trimmers that do so too.

A schedule is a seed. After each call to the store anything else may go on, or hours or days pass. Clocks are off, stand
still, and jump. The store checks at every moment that what its log can still tell has its objects: when an object is
deleted, nothing may name it, and when a segment is written, all that it names has to be there. In the end, when nobody
changes anything, nothing is left but what the log names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from tests.file_infos import deleted, device, encrypted_name, file
from tests.garbage.cheap import cheap_databases
from tests.garbage.checked_store import BY_UPKEEP, KEYS, CheckedStore
from tests.simulated import (
    Call,
    Crash,
    Fault,
    Phase,
    Scheduler,
    SimulatedBucket,
    SimulatedClock,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.entry import NAMED_ONLY, Dissent, Entry, EntryClaims, Removal, StoredObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import trim
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import LogSettings, ObjectSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.garbage import GARBAGE_RULES, GarbageRules
from untrusted_s3.store.layout import name_key
from untrusted_s3.store.retention import KeepRules, KeptRules
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import GarbageCollector, GarbageSettings

HOUR = 3600.0
NAMES = 2
CONTENTS = 2
GRID = PartGrid(single_put_size=1500, min_part_size=1064)
SETTINGS = GarbageSettings(interval=0.9 * DAY, deletions_per_second=0.0)
LOG_SETTINGS = LogSettings(read_ahead=2)
COUNTERS = Counters()
PASSES = (0.2, 1, 3, 7, 13, 25, 25, 50)
LONG_PASSES = (80, 130, 150)
FAULTS = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.UNREACHABLE, Fault.EMPTIED)
NO_KEEP = KeptRules(KeepRules(), 2 * DAY)
KEEP = KeptRules(KeepRules(daily=2, weekly=1), 2 * DAY)
# When all that goes on stands still.
STALLS = (3, 7, 13, 25, 25, 60)
# Between two calls of one piece of work. Longer times let most of them fail.
SHORT = (0.02, 0.05, 0.1, 0.2, 0.2, 0.02, 0.05, 0.1, 0.2, 0.2, 1, 7, 25)


class Clock(SimulatedClock):
    """The clock of a process: the store's, off by some seconds, or standing still."""

    def __init__(self, server: SimulatedClock, ahead: float) -> None:
        self._server = server
        self._ahead = ahead
        self._stopped: float | None = None

    def __call__(self) -> float:
        return self._stopped if self._stopped is not None else self._server() + self._ahead

    def change(self, numbers: random.Random) -> None:
        """Jump, stop, or go on."""
        if self._stopped is not None:
            self._stopped = None
        elif numbers.random() < 0.5:
            self._stopped = self()
        else:
            self._ahead = numbers.choice([0, 0, 0, 600, -600, 840, -840, 5 * HOUR])


@functools.cache
def _empty_state() -> bytes:
    """Return the file of an empty state, which takes long to make."""
    with fast_directory() as directory:
        state = FolderState(directory / "empty.sqlite")
        state.close()
        return state.path.read_bytes()


@functools.lru_cache(10_000)
def _file(name: int, version: int, content: int) -> FileInfo:
    # The first content is one PUT, the other ones are uploaded in parts.
    sizes = (1064,) if content == 0 else (1064, 1064, 1064)
    return file(name, version, sizes=sizes, content=content)


class World:
    """All of it."""

    def __init__(
        self, seed: int, directory: Path, rules: GarbageRules = GARBAGE_RULES, *, enforce_lifetimes: bool = True
    ) -> None:
        self.random = random.Random(seed)
        self.rules = rules
        self.clock = SimulatedClock()
        self.store = CheckedStore(self.clock, enforce_lifetimes=enforce_lifetimes)
        self.directory = directory
        self.version = 0
        self.clocks: list[Clock] = []
        self.writing = 0  # gateways that still do
        self.crashes = self.random.choice([0.0, 0.002, 0.01])
        self.keep = self.random.choice([None, NO_KEEP, KEEP])
        self.gateways, self.collectors = self.random.choice([(2, 2), (2, 2), (2, 1), (3, 2), (4, 3)])
        happens: list[Callable[[], None]] = [functools.partial(self.let_pass, hours * HOUR) for hours in SHORT]
        happens += [functools.partial(self._stall, client) for client in range(self.gateways + self.collectors)]
        happens += [self._change_a_clock, self._change_what_is_kept]
        self.scheduler = Scheduler(iter(lambda: self.random.randrange(4096), None), happens, lambda: self._pass(STALLS))

    def let_pass(self, seconds: float) -> None:
        self.clock.now += seconds

    def _pass(self, hours: Sequence[float]) -> None:
        self.let_pass(self.random.choice(hours) * HOUR)

    def _stall(self, client: int) -> None:
        self.scheduler.stalled ^= {client}

    def _change_what_is_kept(self) -> None:
        self.keep = self.random.choice([None, NO_KEEP, KEEP])

    def _change_a_clock(self) -> None:
        if self.clocks:
            self.random.choice(self.clocks).change(self.random)

    def bucket(self, client: int) -> tuple[SimulatedBucket, Clock]:
        """Return the connection of a new process to the store, and its clock."""
        ahead = self.random.choice([0, 0, 0, 0, 0, 60, -300, 300, 840, -840])
        clock = Clock(self.clock, ahead)
        self.clocks.append(clock)
        hold = self.scheduler.gate(client)
        # Everything else gets far while a process stands still at some call, or where it has read of candidates.
        calls_left = self.random.randint(1, 60) if self.random.random() < 0.4 else 0

        async def gate(call: Call, phase: Phase) -> None:
            nonlocal calls_left
            calls_left -= 1
            has_looked = phase is Phase.ANSWER and call.operation == "get" and call.key.startswith(KEYS.garbage)
            stalls = calls_left == 0 or (has_looked and self.random.random() < 0.05)
            if stalls:
                self.scheduler.stalled.add(client)
            if stalls or self.random.random() < 0.3:  # so that schedules are not too short
                await hold(call, phase)

        return SimulatedBucket(self.store, clock=clock, gate=gate, fault=self._fault), clock

    def _fault(self, call: Call) -> Fault | None:
        if self.random.random() < self.crashes:
            return self.random.choice(list(FAULTS))
        return None

    async def play(self, *, rests: bool) -> None:
        """Play the schedule, then let everybody rest, and see that no garbage is left."""
        gateways = [self._gateway(number) for number in range(self.gateways)]
        collectors = [self._collector(self.gateways + number) for number in range(self.collectors)]
        await self.scheduler.run(*gateways, *collectors)
        if rests:
            await self._rest()

    # Gateways

    async def _gateway(self, number: int) -> None:
        self.writing += 1
        await self._write(number)
        self.writing -= 1

    async def _write(self, number: int) -> None:
        left = self.random.randint(5, 50 // self.gateways)
        while left > 0:
            process = _Gateway(self, number)
            try:
                while left > 0:
                    left -= 1
                    await process.do_something()
            except Crash:
                self.store.happened["crashes"] += 1
            finally:
                process.close(keep=self.random.random() < 0.7)

    async def _collector(self, number: int) -> None:
        BY_UPKEEP.set(True)
        hold = self.scheduler.gate(number)
        for _ in range(self.random.randint(10, 40) // self.collectors):
            if self.writing:  # otherwise nobody waits for what is not needed
                await hold(Call("upkeep", ""), Phase.REQUEST)
            if self.random.random() < 0.3:
                self._pass(PASSES)
            bucket, clock = self.bucket(number)
            try:
                await self._upkeep(bucket, clock)
            except Crash:
                self.store.happened["crashes"] += 1

    async def _upkeep(self, bucket: SimulatedBucket, clock: Clock) -> None:
        try:
            if self.random.random() < 0.5:
                await abort_old_uploads(bucket, KEYS.base, COUNTERS)
            await trim(bucket, KEYS, DAY, clock=clock, settings=LOG_SETTINGS, keep=self.keep)
            collector = GarbageCollector(bucket, KEYS, clock=clock, rules=self.rules, settings=SETTINGS)
            result = await collector.collect(always=self.random.random() < 0.3)
            self.store.happened["candidates"] += result.found.objects
            self.store.happened["candidates that were named again"] += result.named
        except StoreError:
            pass

    async def _rest(self) -> None:
        bucket, clock = SimulatedBucket(self.store), self.clock
        with _Gateway.on(self, 9, bucket, clock) as last:
            await last.log.load()
            if last.state.position:
                await last.log.checkpoint()
            # Older records are gone after that, and what nobody names becomes a candidate; then it is deleted. Uploads
            # that somebody came back to last are old enough after that.
            for days in (7.1, 1.1):
                self.let_pass(days * DAY)
                await trim(bucket, KEYS, DAY, clock=clock, settings=LOG_SETTINGS, keep=NO_KEEP)
                await GarbageCollector(bucket, KEYS, clock=clock, rules=self.rules, settings=SETTINGS).collect()
            await abort_old_uploads(bucket, KEYS.base, COUNTERS)
        assert not self.store.uploads, f"uploads are left: {self.store.uploads.keys()}"
        left = set(self.store.keys(KEYS.objects)) - self.store.named()
        assert not left, f"garbage is left: {left}"
        assert self.store.named() == self.store.named_now, "history is left"
        missing = self.store.named_now - set(self.store.keys(KEYS.objects))
        assert not missing, f"objects are missing: {missing}"


class _Gateway:
    """A process that writes."""

    def __init__(self, world: World, number: int) -> None:
        self.open(world, number, *world.bucket(number))

    def open(self, world: World, number: int, bucket: SimulatedBucket, clock: Callable[[], float]) -> None:
        """Begin the process."""
        self._world = world
        self._number = number
        self._random = world.random
        path = world.directory / f"{number}.sqlite"
        if not path.exists():
            path.write_bytes(_empty_state())
        self.state = FolderState(path)
        self.log = FolderLog(bucket, KEYS, self.state, device(number), LOG_SETTINGS, clock, garbage_rules=world.rules)
        self._writer = ObjectWriter(
            bucket,
            KEYS,
            Account(1 << 20),
            UploadLimits.of(ObjectSettings()),
            COUNTERS,
            ObjectSettings(),
            GRID,
            is_candidate=self.log.garbage.candidates.has,
            clock=clock,
        )
        self._old: list[Entry] = []
        self._is_slow = False

    @classmethod
    @contextlib.contextmanager
    def on(cls, world: World, number: int, bucket: SimulatedBucket, clock: Callable[[], float]) -> Iterator[_Gateway]:
        """Open one that nothing disturbs."""
        gateway = cls.__new__(cls)
        gateway.open(world, number, bucket, clock)
        try:
            yield gateway
        finally:
            gateway.close(keep=True)

    def close(self, *, keep: bool) -> None:
        """End the process."""
        self.state.close()
        if not keep:
            remove_database(self.state.path)

    async def do_something(self) -> None:
        """Change something, or write a checkpoint."""
        if self._random.random() < 0.3:
            passes = LONG_PASSES if self._random.random() < 0.05 else PASSES
            self._world.let_pass(self._random.choice(passes) * HOUR)
        dice = self._random.random()
        try:
            if dice < 0.15:
                await self._checkpoint()
            elif dice < 0.25:
                await self._delete()
            elif dice < 0.4:
                await self._touch()
            elif dice < 0.5:
                await self._go_back()
            elif dice < 0.6:
                await self._disagree()
            else:
                await self._write()
        except (StoreError, DataError) as error:
            self._world.store.happened[f"failed: {type(error).__name__}"] += 1

    def _next(self) -> int:
        self._world.version += 1
        return self._world.version

    async def _checkpoint(self) -> None:
        await self.log.refresh()
        if self.state.position:
            await self.log.checkpoint()

    async def _delete(self) -> None:
        await self._append(Entry(deleted(self._random.randrange(NAMES), self._next()), None, claims=EntryClaims()))

    async def _write(self) -> None:
        """Write a file of few contents, so that old ones come again."""
        info = _file(self._random.randrange(NAMES), self._next(), self._random.randrange(CONTENTS))
        for _ in range(3):
            if await self._append(Entry(info, await self._store(info), claims=EntryClaims())):
                return

    async def _disagree(self) -> None:
        """Write a file of which two devices have other contents."""
        name = self._random.randrange(NAMES)
        infos = [_file(name, self._next(), content) for content in self._random.sample(range(CONTENTS), 2)]
        for _ in range(3):
            current, other = [Entry(info, await self._store(info)) for info in infos]
            claims = EntryClaims((device(1),), (Dissent(other, (device(2),)),))
            if await self._append(dataclasses.replace(current, claims=claims)):
                return

    async def _store(self, info: FileInfo) -> StoredObject:
        self._is_slow = self._random.random() < 0.05
        may_be_stored = self._random.random() < 0.5
        return await self._writer.write(
            info, self._fetch, self.state.entry(info.name), owner=1, may_be_stored=may_be_stored
        )

    async def _fetch(self, number: int, block: pb.BlockInfo) -> memoryview:
        if self._is_slow:
            self._world.let_pass(self._random.choice([25, 80, 130]) * HOUR)
        return memoryview(hashlib.shake_128(block.hash).digest(block.size))

    async def _touch(self) -> None:
        """Change the times of a file, as far as this gateway knows it."""
        before = self.state.entry(encrypted_name(self._random.randrange(NAMES)))
        if before is None or before.stored is None:
            return
        info = before.file_info
        name = next(number for number in range(NAMES) if encrypted_name(number) == info.name)
        content = next(one for one in range(CONTENTS) if _same_content(_file(name, 1, one), info))
        stored = _seen(before, NAMED_ONLY)
        assert stored.stored is not None
        if not await self._append(Entry(_file(name, self._next(), content), stored.stored, claims=EntryClaims())):
            self._world.store.happened["touched too late"] += 1

    async def _append(self, entry: Entry) -> bool:
        """Write an entry as LogWriter does. Return False if its object may be deleted."""
        await self._wait()
        if self._random.random() < 0.2:
            await self.log.refresh()
        await self.log.garbage.look([entry])
        if self.log.garbage.keeps_out(entry):
            self._world.store.happened["kept out"] += 1
            return False
        await self.log.append([entry])
        self._old.append(entry)
        return True

    async def _wait(self) -> None:
        """Let the others go on, perhaps as far as they do."""
        hold = self._world.scheduler.gate(self._number)
        if self._random.random() < 0.1:
            self._world.scheduler.stalled.add(self._number)
        for _ in range(self._random.choice([0, 0, 1, 5, 20])):
            await hold(Call("wait", ""), Phase.REQUEST)

    async def _go_back(self) -> None:
        """Bring an old version back by a renewal."""
        if not self._old:
            return
        old = _seen(self._random.choice(self._old), None)
        key = name_key(old.file_info.name)
        plan = functools.partial(self._plan, Removal(key), old)
        await self.log.renew(plan, check_objects=True)
        self._world.store.happened["gone back"] += 1

    @staticmethod
    def _plan(removal: Removal, entry: Entry, state: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
        return [removal], [entry]


def _same_content(one: FileInfo, other: FileInfo) -> bool:
    return [block.hash for block in one.message.blocks] == [block.hash for block in other.message.blocks]


def _seen(entry: Entry, seen: float | None) -> Entry:
    if entry.stored is None:
        return entry
    return dataclasses.replace(entry, stored=dataclasses.replace(entry.stored, seen=seen))


def play(
    seed: int,
    rules: GarbageRules = GARBAGE_RULES,
    *,
    enforce_lifetimes: bool = True,
    rests: bool = True,
    cheap: bool = True,
) -> Counter[str]:
    """Play one schedule, and return what happened. Raises AssertionError."""
    numbers = random.Random(f"ids of {seed}")
    with (
        inline_threads(),
        cheap_databases() if cheap else fast_directory() as directory,
        mock.patch.object(secrets, "token_hex", lambda size: numbers.randbytes(size).hex()),
        mock.patch.object(secrets, "token_bytes", numbers.randbytes),
        mock.patch.object(secrets, "randbits", numbers.getrandbits),
    ):
        world = World(seed, directory, rules, enforce_lifetimes=enforce_lifetimes)
        run_in_virtual_time(world.play(rests=rests))
        return world.store.happened
