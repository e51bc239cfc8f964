"""Deleted segments: no position is ever created twice, and no gap is taken for the end of the log.

The adversary here deletes every segment, and with `greedy` every checkpoint, at the first moment at which the rules of
`index/log.py` allow it, lets any call stall for days, and stops gateways' clocks. A real trimmer, which may stall as
well, is at work beside it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import entry, file
from tests.index.gateways import KEYS, SEGMENTS, SimulatedGateway, contents
from tests.simulated import (
    Call,
    Phase,
    Scheduler,
    SimulatedBucket,
    SimulatedClock,
    SimulatedStore,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.index.rules import LOG_RULES, LogRules
from untrusted_s3.index.trimming import trim
from untrusted_s3.store.format import FILE_UPLOAD_LIFETIME, SEGMENT_RETENTION

MINUTE, HOUR = 60, 3600


def position_of(key: str) -> int:
    return int(key.rpartition("/")[2])


def clean_up(store: SimulatedStore, *, greedy: bool = False, by_age_of_segment: bool = False) -> None:
    """Delete what may be deleted: segments that a checkpoint covers, once that checkpoint is old, and the checkpoints
    before it; with `greedy` those before the newest. `by_age_of_segment` is the wrong rule: it does not look at the
    checkpoint's age."""
    covered = 0
    for key in store.keys(KEYS.checkpoints):
        if by_age_of_segment or store.age(key) >= SEGMENT_RETENTION:
            covered = max(covered, position_of(key))
    for key in store.keys(SEGMENTS):
        if position_of(key) <= covered and (not by_age_of_segment or store.age(key) >= SEGMENT_RETENTION):
            del store.objects[key]
    for key in store.keys(KEYS.checkpoints)[:-1]:
        if greedy or position_of(key) < covered:
            del store.objects[key]


class GatewayClock(SimulatedClock):
    """A gateway's clock: the server's, off by `ahead` seconds, or standing still."""

    def __init__(self, server: SimulatedClock, ahead: float) -> None:
        self._server = server
        self._ahead = ahead
        self._stopped: float | None = None

    def __call__(self) -> float:
        return self._stopped if self._stopped is not None else self._server() + self._ahead

    def stop_or_correct(self) -> None:
        """Stop the clock; a second call sets it right."""
        self._stopped = self() if self._stopped is None else None


class World:
    """Gateways that write, one that only reads, a trimmer, and the adversary. `ahead` has how many seconds each
    gateway's clock is ahead."""

    def __init__(
        self,
        directory: Path,
        schedule: Iterable[int],
        ahead: Sequence[float] = (0, 0, 0),
        *,
        clocks_stop: bool = False,
        enforce_lifetimes: bool = True,
        greedy: bool = False,
        by_age_of_segment: bool = False,
        stall_hours: float = 25,
        rules: LogRules = LOG_RULES,
    ) -> None:
        self.clock = SimulatedClock()
        self.store = SimulatedStore(self.clock, enforce_lifetimes=enforce_lifetimes)
        self.gaps = 0
        self._directory = directory
        self._clean_up = partial(clean_up, self.store, greedy=greedy, by_age_of_segment=by_age_of_segment)
        clocks = [GatewayClock(self.clock, seconds) for seconds in ahead]
        happens: list[Callable[[], None]] = [partial(self.let_pass, hours * HOUR) for hours in (0.07, 1, 13, 25, 25)]
        happens += [partial(self.stall_or_resume, number) for number in range(len(clocks) + 1)]
        if clocks_stop:
            happens += [clock.stop_or_correct for clock in clocks]
        self.scheduler = Scheduler(schedule, happens, partial(self.let_pass, stall_hours * HOUR))
        self.gateways = []
        for number, clock in enumerate(clocks):
            bucket = SimulatedBucket(self.store, clock=clock)
            self.gateways.append(SimulatedGateway(bucket, number, directory, clock, rules=rules))
        self.trimmer = SimulatedBucket(self.store)
        self._buckets = [*(gateway.bucket for gateway in self.gateways), self.trimmer]

    def stall_or_resume(self, number: int) -> None:
        self.scheduler.stalled ^= {number}

    def let_pass(self, seconds: float) -> None:
        self.clock.now += seconds
        self._clean_up()

    @property
    def end(self) -> int:
        """The highest position that was ever written."""
        keys = [position_of(key) for key in self.store.ever_created if key.startswith(SEGMENTS)]
        return max(keys, default=0)

    async def look(self, gateway: SimulatedGateway) -> None:
        """Read the log. The state must then have come as far as the log had when the look began."""
        end = self.end
        await gateway.log.refresh()
        if gateway.state.position < end:
            self.gaps += 1

    async def write(self, gateway: SimulatedGateway, number: int) -> None:
        names = itertools.count()
        for _ in range(5):
            try:
                await gateway.log.append([entry(file(f"{number} {next(names)}"))])
                await gateway.log.checkpoint()
                await self.look(gateway)
            except StoreError:
                pass
            except DataError:  # a gap that was noticed
                self.gaps += 1
            self._clean_up()

    async def read(self, gateway: SimulatedGateway) -> None:
        for _ in range(3):
            try:
                await self.look(gateway)
            except StoreError:
                pass
            except DataError:
                self.gaps += 1

    async def trim(self) -> None:
        for _ in range(3):
            try:
                await trim(self.trimmer, KEYS, 0.0, clock=self.clock)
            except StoreError:
                pass

    def stall_at(self, number: int, step: int) -> None:
        """Make one client stall at one step of its calls, until all others are done and `stall_hours` have passed."""
        bucket = self._buckets[number]
        hold, steps = bucket.gate, itertools.count(1)

        async def gate(call: Call, phase: Phase) -> None:
            if next(steps) == step:
                self.scheduler.stalled.add(number)
            await hold(call, phase)

        bucket.gate = gate

    async def play(self, *, old_segments: int = 0, stall: tuple[int, int] | None = None) -> bool:
        """Write old segments without a checkpoint, wait 25 hours, and run all. Return whether the log stayed whole."""
        earlier = SimulatedGateway(SimulatedBucket(self.store), 9, self._directory)
        for number in range(old_segments):
            await earlier.log.append([entry(file(f"old {number}"))])
        earlier.close()
        self.let_pass(25 * HOUR)
        for number, bucket in enumerate(self._buckets):
            bucket.gate = self.scheduler.gate(number)
        if stall is not None:
            self.stall_at(*stall)
        *writers, reader = self.gateways
        try:
            await self.scheduler.run(
                *(self.write(writer, number) for number, writer in enumerate(writers)), self.read(reader), self.trim()
            )
        finally:
            for gateway in self.gateways:
                gateway.close()
        return not self.store.created_twice and not self.gaps


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.integers(0, 2047), max_size=150),
    st.integers(0, 2),
    st.tuples(*[st.integers(-10 * MINUTE, 10 * MINUTE)] * 3),
    st.booleans(),
    st.booleans(),
)
def test_no_position_twice_and_no_gap(
    schedule: list[int], old_segments: int, ahead: tuple[int, int, int], clocks_stop: bool, greedy: bool
) -> None:
    with inline_threads(), fast_directory() as directory:
        world = World(directory, schedule, ahead, clocks_stop=clocks_stop, greedy=greedy)
        run_in_virtual_time(world.play(old_segments=old_segments))
        assert world.store.created_twice == []
        assert world.gaps == 0


def stalls_that_break(
    stall_hours: float,
    *,
    enforce_lifetimes: bool = True,
    by_age_of_segment: bool = False,
    rules: LogRules = LOG_RULES,
) -> Iterator[tuple[int, int, int]]:
    """Let one client stall at each step in turn. Yield where that breaks the log."""
    for old_segments, number, step in itertools.product((0, 2), range(4), range(1, 45)):
        if number == 3 and step > 12:
            continue
        with inline_threads(), fast_directory() as directory:
            world = World(
                directory,
                [],
                stall_hours=stall_hours,
                enforce_lifetimes=enforce_lifetimes,
                greedy=old_segments == 0,
                by_age_of_segment=by_age_of_segment,
                rules=rules,
            )
            if not run_in_virtual_time(world.play(old_segments=old_segments, stall=(number, step))):
                yield old_segments, number, step


@pytest.mark.parametrize("hours", [0, 25])
def test_a_long_stall_at_any_step(hours: float) -> None:
    assert list(stalls_that_break(hours)) == []


def test_breaks_where_the_store_takes_any_signature() -> None:
    assert any(stalls_that_break(25, enforce_lifetimes=False))


def test_breaks_where_segments_go_before_their_checkpoint_is_old() -> None:
    assert any(stalls_that_break(0, by_age_of_segment=True))


@pytest.mark.parametrize("rules", [LogRules(retention=1e12), LogRules(append_lifetime=10**12)], ids=str)
def test_breaks_without_a_limit(rules: LogRules) -> None:
    """A reader that never begins again at a checkpoint; a writer whose look and signature never get old."""
    assert any(stalls_that_break(25, rules=rules))


@pytest.mark.parametrize("lifetime", [FILE_UPLOAD_LIFETIME, 1e12])
async def test_a_checkpoint_whose_upload_stalled_for_a_day(lifetime: float, tmp_path: Path) -> None:
    """It would look a day old when it appears; a reader that has just found no newer checkpoint must still be able to
    read on. So the store refuses it; without that, the reader takes a gap for the end."""
    clock = SimulatedClock()
    store = SimulatedStore(clock)
    writer = SimulatedGateway(SimulatedBucket(store, file_upload_lifetime=lifetime), 1, tmp_path)
    reader = SimulatedGateway(SimulatedBucket(store), 2, tmp_path)
    for number in range(3):
        await writer.log.append([entry(file(number))])
    uploading, go_on, listed, read_on = (asyncio.Event() for _ in range(4))

    async def hold_upload(call: Call, phase: Phase) -> None:
        if call.operation == "upload_file" and phase is Phase.REQUEST:
            uploading.set()
            await go_on.wait()

    async def hold_reader(call: Call, phase: Phase) -> None:
        if call.operation == "list" and phase is Phase.ANSWER:
            listed.set()
            await read_on.wait()

    writer.bucket.gate, reader.bucket.gate = hold_upload, hold_reader
    upload = asyncio.create_task(writer.log.checkpoint())
    await uploading.wait()
    clock.now += 25 * HOUR
    load = asyncio.create_task(reader.log.load())
    await listed.wait()
    go_on.set()
    (refusal,) = await asyncio.gather(upload, return_exceptions=True)
    await trim(SimulatedBucket(store), KEYS, 0.0)
    read_on.set()
    await load
    assert isinstance(refusal, StoreError) == (contents(reader.state) == contents(writer.state)) == (lifetime < 1e9)
