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
import itertools
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

from tests.garbage.cheap import cheap_databases
from tests.garbage.checked_store import BY_UPKEEP, KEYS, CheckedStore, Event, is_record
from tests.garbage.gateway import COUNTERS, HOUR, LOG_SETTINGS, PASSES, Gateway
from tests.garbage.plots import CONTENTS, NAMES, PLOTS, WHATEVER, Plot
from tests.simulated import (
    Call,
    Crash,
    Fault,
    Phase,
    QuickLoop,
    Scheduler,
    SimulatedBucket,
    SimulatedClock,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import StoreError
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.trimming import trim
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.store.garbage import GARBAGE_RULES, GarbageRules
from untrusted_s3.store.retention import KeepRules, KeptRules
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import GarbageCollector, GarbageSettings

SETTINGS = GarbageSettings(interval=0.9 * DAY, deletions_per_second=0.0)
FAULTS = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.UNREACHABLE, Fault.EMPTIED)
NO_KEEP = KeptRules(KeepRules(), 2 * DAY)
KEEP = KeptRules(KeepRules(daily=2, weekly=1), 2 * DAY)
# When all that goes on stands still.
STALLS = (3, 7, 13, 25, 25, 60)
# Between two calls of one piece of work. Longer times let most of them fail.
SHORT = (0.02, 0.05, 0.1, 0.2, 0.2, 0.02, 0.05, 0.1, 0.2, 0.2, 1, 7, 25)


# Every so manyth schedule ends with a rest.
RESTS = 5
# How far from something that becomes due.
AROUND = (-600.0, 1.0, 1.0, 600.0, 2 * HOUR, 8 * HOUR)
# How old the candidates are where a schedule begins with some.
BEGINS = (0, 7, 13, 20, 23.9)


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


class World:
    """All of it."""

    def __init__(
        self,
        seed: int,
        directory: Path,
        rules: GarbageRules = GARBAGE_RULES,
        plot: Plot | None = None,
        *,
        enforce_lifetimes: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.plot = plot = plot or PLOTS[seed % len(PLOTS)]
        self.rules = rules
        self.clock = SimulatedClock()
        self.store = CheckedStore(self.clock, enforce_lifetimes=enforce_lifetimes)
        self.store.on_event = self._note
        self.directory = directory
        self.version = 0
        self._awaited: dict[int, list[Event]] = {}
        self.clocks: list[Clock] = []
        self.writing = 0  # gateways that still do
        self.crashes = self.random.choice([0.0, 0.002, 0.01])
        self.keep = self.random.choice([None, NO_KEEP, KEEP])
        self.old: list[Entry] = []  # all that was ever written to the log
        self.gateways, self.collectors = self.random.choice(plot.teams)
        self.begins_with_garbage = self.random.random() < plot.begins_with_garbage
        self.settings = dataclasses.replace(SETTINGS, concurrent_deletions=self.random.choice([1, 16]))
        short = SHORT[:5] if plot.jumps else SHORT
        happens: list[Callable[[], None]] = [functools.partial(self.let_pass, hours * HOUR) for hours in short]
        if plot.stalls_at_random:
            happens += [functools.partial(self._stall, client) for client in range(self.gateways + self.collectors)]
        happens += [self._change_a_clock, self._change_what_is_kept]
        self.scheduler = Scheduler(
            iter(lambda: self.random.randrange(4096), None), happens, lambda: self.pass_some(STALLS)
        )

    def let_pass(self, seconds: float) -> None:
        self.clock.now += seconds

    def pass_some(self, hours: Sequence[float]) -> None:
        """Let one of some times pass, or the time until something is about to be due or has just become due."""
        if self.random.random() < self.plot.jumps and (due := self._due_in()):
            self.let_pass(max(self.random.choice(due) + self.random.choice(AROUND), 0.0))
        else:
            self.let_pass(self.random.choice(hours) * HOUR)

    def _due_in(self) -> list[float]:
        """Return in how many seconds records of candidates, and the youngest object, come to another age."""
        rules, found = self.rules, [0.0]
        swept = rules.grace + rules.sweep
        for key in self.store.objects:
            if is_record(key):
                found += [age - self.store.age(key) for age in (rules.grace, swept, swept + rules.margin)]
            elif key.startswith(KEYS.objects):
                found[0] = max(found[0], rules.grace - self.store.age(key))
        return [seconds for seconds in found if seconds > 0]

    def _stall(self, client: int) -> None:
        self.scheduler.stalled ^= {client}

    def stand_still(self, client: int) -> None:
        """Let a process wait for something, or until no other one can go on."""
        self.scheduler.stalled.add(client)
        self._awaited[client] = list(self.random.choice(self.plot.awaits))

    def may_be_slow(self, client: int) -> bool:
        """Return whether a process stands still now and then: in most plots, one gateway and one collector do."""
        return client in (0, self.gateways) or self.plot.stalls_at_random > 0

    def _note(self, event: Event) -> None:
        for client, awaited in self._awaited.items():
            if awaited and awaited[0] is event:
                awaited.pop(0)
                if not awaited:
                    self.scheduler.stalled.discard(client)

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
        # Everything else gets far while a process stands still.
        plot, dice = self.plot, self.random.random
        calls_left = self.random.randint(1, 60) if dice() < plot.stalls_at_random else 0
        reads: Counter[str] = Counter()

        async def gate(call: Call, phase: Phase) -> None:
            nonlocal calls_left
            calls_left -= 1
            if phase is Phase.ANSWER and call.operation == "get":
                reads[call.key] += 1
            stalls = calls_left == 0 or dice() < self._stalls_at(call, phase, client, reads[call.key])
            if stalls:
                self.stand_still(client)
            if stalls or (dice() < plot.hold and (phase is Phase.ANSWER or not plot.only_answers)):
                await hold(call, phase)

        return SimulatedBucket(self.store, clock=clock, gate=gate, fault=self._fault), clock

    def _stalls_at(self, call: Call, phase: Phase, client: int, reads: int) -> float:
        """Return how often a process stands still here."""
        plot = self.plot
        if not self.may_be_slow(client):
            return 0.0
        if phase is Phase.REQUEST:
            is_deletion = call.operation == "delete" and call.key.startswith(KEYS.objects)
            return plot.stall_before_deletion if is_deletion else 0.0
        has_looked = call.operation == "get" and call.key.startswith(KEYS.garbage)
        if client >= self.gateways:
            # A collector reads a record for the third time when it deletes what that has.
            return plot.stall_in_sweep if has_looked and reads == 3 else plot.stall_in_turn
        return plot.stall_after_look if has_looked else 0.0

    def _fault(self, call: Call) -> Fault | None:
        if self.random.random() < self.crashes:
            return self.random.choice(list(FAULTS))
        return None

    async def play(self, *, rests: bool) -> None:
        """Play the schedule, then let everybody rest, and see that no garbage is left."""
        gateways = [self._gateway(number) for number in range(self.gateways)]
        collectors = [self._collector(self.gateways + number) for number in range(self.collectors)]
        await self.scheduler.run(*gateways, *collectors)
        if self.store.failure is not None:
            raise self.store.failure
        if rests:
            await self._rest()

    async def make_garbage(self) -> None:
        """Let some objects become candidates."""
        bucket = SimulatedBucket(self.store)
        with Gateway.on(self, 9, bucket, self.clock) as first:
            await first.log.load()
            for name, content in itertools.product(range(NAMES), range(CONTENTS)):
                await first.write(name, content)
            for name in range(NAMES):
                await first.delete(name)
            await first.log.checkpoint()
        self.let_pass(1.1 * DAY)
        await trim(bucket, KEYS, DAY, clock=self.clock, settings=LOG_SETTINGS, keep=NO_KEEP)
        await GarbageCollector(bucket, KEYS, clock=self.clock, rules=self.rules, settings=SETTINGS).collect()

    def go_on_from(self, other: World) -> None:
        """Begin where another one has ended."""
        self.store.copy_from(other.store)
        self.clock.now, self.version = other.clock.now, other.version
        self.old += other.old

    # Gateways

    async def _gateway(self, number: int) -> None:
        self.writing += 1
        await self._write(number)
        self.writing -= 1

    async def _write(self, number: int) -> None:
        least, most = self.plot.changes
        left = self.random.randint(least, most // self.gateways)
        while left > 0:
            process = Gateway(self, number)
            try:
                while left > 0:
                    left -= 1
                    await process.do_something()
                    if self.random.random() < self.plot.restarts:
                        break
            except Crash:
                self.store.happened["crashes"] += 1
            finally:
                process.close(keep=self.random.random() < 0.7)

    async def _collector(self, number: int) -> None:
        BY_UPKEEP.set(True)
        hold = self.scheduler.gate(number)
        for _ in range(self.random.randint(*self.plot.turns) // self.collectors):
            if self.writing:  # otherwise nobody waits for what is not needed
                await hold(Call("upkeep", ""), Phase.REQUEST)
            if self.random.random() < (0.6 if self.plot.jumps else 0.3):
                self.pass_some(PASSES)
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
            collector = GarbageCollector(bucket, KEYS, clock=clock, rules=self.rules, settings=self.settings)
            result = await collector.collect(always=self.random.random() < 0.3)
            self.store.happened["candidates"] += result.found.objects
            self.store.happened["candidates that were named again"] += result.named
        except StoreError:
            pass

    async def _rest(self) -> None:
        bucket, clock = SimulatedBucket(self.store), self.clock
        with Gateway.on(self, 9, bucket, clock) as last:
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


@functools.cache
def _with_garbage(rules: GarbageRules) -> World:
    """Return a world in which all objects are candidates. To make it takes as long as much of a schedule."""
    with inline_threads(), cheap_databases() as directory, _ids("garbage"):
        world = World(0, directory, rules, WHATEVER)
        QuickLoop().run(world.make_garbage())
        return world


@contextlib.contextmanager
def _ids(seed: str) -> Iterator[None]:
    """Let what is random depend on a seed."""
    numbers = random.Random(seed)
    with (
        mock.patch.object(secrets, "token_hex", lambda size: numbers.randbytes(size).hex()),
        mock.patch.object(secrets, "token_bytes", numbers.randbytes),
        mock.patch.object(secrets, "randbits", numbers.getrandbits),
    ):
        yield


def play(
    seed: int,
    rules: GarbageRules = GARBAGE_RULES,
    *,
    enforce_lifetimes: bool = True,
    rests: bool | None = None,
    cheap: bool = True,
) -> Counter[str]:
    """Play one schedule, and return what happened. Raises AssertionError.

    Whether everybody `rests` at the end depends on the seed if it is not given.
    """
    if rests is None:
        rests = seed % RESTS == 0
    garbage = _with_garbage(rules)
    with inline_threads(), cheap_databases() if cheap else fast_directory() as directory, _ids(f"ids of {seed}"):
        world = World(seed, directory, rules, enforce_lifetimes=enforce_lifetimes)
        if world.begins_with_garbage:
            world.go_on_from(garbage)
            world.let_pass(world.random.choice(BEGINS) * HOUR)
        (QuickLoop().run if cheap else run_in_virtual_time)(world.play(rests=rests))
        return world.store.happened
