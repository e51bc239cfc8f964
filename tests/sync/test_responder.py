"""Requested blocks: by which reads they come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.simulated import Call, Fault, Phase, SimulatedBucket, fail_once
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.counters import Counters
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.responder import Responder

SYNC = SyncSettings()
MEMORY = 1 << 20


class Answers:
    """Keeps the answers by the requests' labels."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[bytes, int]] = {}
        self.slow = asyncio.Event()
        self.slow.set()

    def to(self, label: str) -> Callable[[memoryview, int], asyncio.Future[None]]:
        async def answer(data: memoryview, code: int) -> None:
            assert label not in self.given, "answered twice"
            self.given[label] = bytes(data), code
            await self.slow.wait()

        return lambda data, code: asyncio.ensure_future(answer(data, code))


class Reading:
    """A responder on a bucket with two objects, whose bytes depend on their offsets."""

    def __init__(self, settings: SyncSettings = SYNC, memory: int = MEMORY, part_size: int = 100_000) -> None:
        self.bucket = SimulatedBucket()
        self.body = bytes(number % 251 for number in range(100_000))
        self.bucket.store.put("one", self.body)
        self.bucket.store.put("two", self.body[::-1])
        self.part_size = part_size
        self.checked: list[tuple[int, bytes]] = []
        self.failed: list[tuple[str, int, int]] = []
        self.responder = Responder(
            self.bucket,
            Counters(),
            settings,
            memory,
            on_failure=lambda key, start, size: self.failed.append((key, start, size)),
            on_block=lambda key, offset, block: self.checked.append((offset, bytes(block))),
        )
        self.answers = Answers()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.bucket.gate = self._gate

    async def _gate(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST:
            await self.go_on.wait()

    def ask(self, key: str, start: int, size: int, label: str = "") -> None:
        end = min((start // self.part_size + 1) * self.part_size, len(self.body))
        block = RequestedBlock(key, start, size, end)
        self.responder.submit(block, self.answers.to(label or f"{key} {start}"))

    async def ask_in_turn(self, key: str, blocks: range, size: int = 1000, label: str = "") -> None:
        """Ask for blocks, the next one when the one before is here."""
        for number in blocks:
            self.ask(key, number * size, size, f"{label} {number}")
            await settled()
            expected = self.body if key == "one" else self.body[::-1]
            assert self.answers.given[f"{label} {number}"] == (expected[number * size :][:size], pb.NO_ERROR)

    @property
    def ranges(self) -> list[tuple[str, int, int | None]]:
        return [(call.key, call.start, call.size) for call in self.bucket.calls]


@virtual_time
async def test_neighbours_are_one_read() -> None:
    reading = Reading()
    for start in (3000, 1000, 2000):
        reading.ask("one", start, 1000)
    reading.ask("one", 4001, 1000)
    await settled()
    # In the order in which they came: 3000 has no neighbour behind it.
    assert reading.ranges == [("one", 3000, 1000), ("one", 1000, 2000), ("one", 4001, 1000)]
    for start in (1000, 2000, 3000, 4001):
        assert reading.answers.given[f"one {start}"] == (reading.body[start : start + 1000], pb.NO_ERROR)


@virtual_time
async def test_neighbours_in_different_objects_are_not() -> None:
    reading = Reading()
    reading.ask("one", 0, 1000)
    reading.ask("two", 1000, 1000)
    await settled()
    assert reading.ranges == [("one", 0, 1000), ("two", 1000, 1000)]
    assert reading.answers.given["two 1000"][0] == reading.body[::-1][1000:2000]


@virtual_time
async def test_one_block_for_two_peers_is_one_read() -> None:
    reading = Reading()
    reading.ask("one", 0, 1000, "first peer")
    reading.ask("one", 0, 1000, "second peer")
    await settled()
    assert reading.ranges == [("one", 0, 1000)]
    assert reading.answers.given["first peer"] == reading.answers.given["second peer"]


@virtual_time
async def test_a_read_has_a_largest_size() -> None:
    reading = Reading(SyncSettings(largest_get=2500))
    for start in range(0, 6000, 1000):
        reading.ask("one", start, 1000)
    await settled()
    assert reading.ranges == [("one", 0, 3000), ("one", 3000, 3000)]


@virtual_time
async def test_so_many_reads_at_once_and_the_rest_is_joined() -> None:
    reading = Reading(SyncSettings(concurrent_gets=2))
    reading.go_on.clear()
    for start in range(0, 50_000, 10_000):
        reading.ask("one", start, 1000)
    await settled()
    assert len(reading.ranges) == 2
    reading.ask("one", 41_000, 1000)
    reading.go_on.set()
    await settled()
    assert reading.ranges[2:] == [("one", 20_000, 1000), ("one", 30_000, 1000), ("one", 40_000, 2000)]
    assert len(reading.answers.given) == 6


@virtual_time
async def test_fewer_reads_at_once_where_the_store_wants_fewer() -> None:
    reading = Reading(SyncSettings(concurrent_gets=3, concurrent_gets_of_object=8))
    now = asyncio.get_running_loop().time
    reading.go_on.clear()
    for start in range(0, 60_000, 10_000):
        reading.ask("one", start, 1000)
    await settled()
    assert len(reading.ranges) == 3
    reading.responder.gets.refused(now())
    reading.go_on.set()
    await settled()
    assert reading.responder.gets.limit == 1 and len(reading.answers.given) == 6
    reading.go_on.clear()
    for start in range(0, 60_000, 10_000):
        reading.ask("two", start, 1000)
    await settled()
    assert len(reading.ranges) == 7
    for _ in range(8):  # the limit comes back, and so do the reads
        reading.responder.gets.answered(1000, now())
    await settled()
    assert reading.responder.gets.limit > 1 and len(reading.ranges) == 6 + reading.responder.gets.limit
    reading.go_on.set()
    await settled()
    assert len(reading.answers.given) == 12


@virtual_time
@pytest.mark.parametrize(("fault", "code"), [(Fault.UNREACHABLE, pb.GENERIC), (Fault.ANSWER_LOST, pb.GENERIC)])
async def test_a_store_that_does_not_answer(fault: Fault, code: int) -> None:
    reading = Reading()
    reading.bucket.fault = fail_once("get", fault)
    reading.ask("one", 0, 1000)
    reading.ask("one", 1000, 1000)
    await settled()
    assert reading.answers.given == {"one 0": (b"", code), "one 1000": (b"", code)}
    reading.ask("one", 0, 1000, "again")
    await settled()
    assert reading.answers.given["again"] == (reading.body[:1000], pb.NO_ERROR)


@virtual_time
async def test_an_object_that_is_missing() -> None:
    reading = Reading()
    reading.ask("three", 0, 1000)
    await settled()
    assert reading.answers.given == {"three 0": (b"", pb.NO_SUCH_FILE)}


@virtual_time
async def test_a_peer_that_does_not_read_keeps_no_place() -> None:
    reading = Reading()
    reading.answers.slow.clear()
    for start in range(0, 50_000, 1001):
        reading.ask("one", start, 1000)
    await settled()
    assert len(reading.answers.given) == 50


@virtual_time
async def test_a_peer_that_is_gone_harms_no_other() -> None:
    reading = Reading()

    async def answer(data: memoryview, code: int) -> None:
        raise ConnectionError("gone")

    reading.responder.submit(RequestedBlock("one", 0, 1000, 1000), answer)
    reading.ask("one", 1000, 1000)
    await settled()
    assert reading.answers.given["one 1000"] == (reading.body[1000:2000], pb.NO_ERROR)


@virtual_time
async def test_a_stop_gives_up_what_is_under_way() -> None:
    """Otherwise it would use the store's connections after they are closed."""
    held = asyncio.Event()
    bucket = SimulatedBucket()
    bucket.store.put("object", bytes(1000))

    async def hold(call: Call, phase: Phase) -> None:
        held.set()
        await asyncio.Event().wait()

    bucket.gate = hold
    responder = Responder(bucket, Counters(), SYNC, MEMORY)
    answered: list[int] = []

    async def answer(data: memoryview, code: int) -> None:
        answered.append(code)

    for offset in (0, 500):
        responder.submit(RequestedBlock("object", offset, 100, 1000), answer)
    await held.wait()
    await responder.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bucket.count("get") == 2 and not answered


# Reading on


@virtual_time
async def test_who_reads_in_order_is_read_for_by_whole_parts() -> None:
    reading = Reading(part_size=8000)
    await reading.ask_in_turn("one", range(40))
    # By twice as much as was requested of the range before, to the end of each part.
    assert reading.ranges[:4] == [("one", 0, 1000), ("one", 1000, 3000), ("one", 4000, 4000), ("one", 8000, 8000)]
    assert reading.ranges[4:] == [("one", start, 8000) for start in range(16_000, 40_000, 8000)]
    assert reading.checked == [(start, reading.body[start : start + 1000]) for start in range(0, 40_000, 1000)]


@virtual_time
async def test_the_last_block_is_shorter() -> None:
    reading = Reading(part_size=20_000)
    reading.body = reading.body[:4500]
    reading.bucket.store.put("one", reading.body + b"trailer")
    await reading.ask_in_turn("one", range(4))
    reading.ask("one", 4000, 500, "last")
    await settled()
    assert reading.answers.given["last"] == (reading.body[4000:], pb.NO_ERROR)
    assert reading.ranges == [("one", 0, 1000), ("one", 1000, 3000), ("one", 4000, 500)]


@virtual_time
async def test_who_reads_here_and_there_gets_what_is_requested() -> None:
    numbers = list(range(0, 100, 2))
    random.Random(1).shuffle(numbers)
    reading = Reading(part_size=8000)
    for number in numbers:
        await reading.ask_in_turn("one", range(number, number + 1))
    assert reading.ranges == [("one", 1000 * number, 1000) for number in numbers]


@virtual_time
async def test_reading_on_costs_at_most_twice_what_was_requested() -> None:
    """A device cannot make the gateway read a whole part for each of its blocks."""
    reading = Reading(part_size=8000)
    asked, offset = 0, 0
    while offset < 90_000:
        reading.ask("one", offset, 1000)
        await settled()
        asked += 1
        _, start, size = reading.ranges[-1]
        offset = start + (size or 0)
    assert sum(size or 0 for _, _, size in reading.ranges) <= 3 * 1000 * asked


@virtual_time
async def test_what_several_peers_ask_for_is_read_once() -> None:
    reading = Reading(part_size=8000)
    for first in range(0, 80, 4):
        for peer in range(10):
            await reading.ask_in_turn("one", range(first, first + 4), label=f"peer {peer}")
    assert sum(size or 0 for _, _, size in reading.ranges) == 80_000
    assert len(reading.checked) == 80, "each block is checked once"


@virtual_time
async def test_what_is_being_read_is_not_read_again() -> None:
    reading = Reading()
    reading.go_on.clear()
    reading.ask("one", 0, 1000, "first peer")
    await settled()
    reading.ask("one", 0, 1000, "second peer")
    await settled()
    reading.go_on.set()
    await settled()
    assert reading.ranges == [("one", 0, 1000)]
    assert reading.answers.given["first peer"] == reading.answers.given["second peer"] == (reading.body[:1000], 0)


@virtual_time
@pytest.mark.parametrize("memory", [0, 5000, 20_000])
async def test_what_is_kept_is_bounded(memory: int) -> None:
    reading = Reading(memory=memory, part_size=8000)
    reading.go_on.clear()
    for number in range(100):
        reading.ask("one", number * 1000, 1000, f"first {number}")
        await settled()
        assert reading.responder.recent_bytes <= memory
    reading.go_on.set()
    await settled()
    assert len(reading.answers.given) == 100
    await reading.ask_in_turn("two", range(100))
    assert reading.responder.recent_bytes <= memory


@virtual_time
async def test_what_nobody_asks_for_is_dropped() -> None:
    reading = Reading(SyncSettings(recent_lifetime=30.0), part_size=8000)
    await reading.ask_in_turn("one", range(10))
    await asyncio.sleep(20)
    await reading.ask_in_turn("one", range(9, 10), label="again")
    await asyncio.sleep(27)
    # The range with the block that was asked for again.
    assert 1000 < reading.responder.recent_bytes < 10_000
    await asyncio.sleep(60)
    assert reading.responder.recent_bytes == 0


@virtual_time
async def test_an_object_that_ends_too_early_gives_what_it_has() -> None:
    reading = Reading(part_size=8000)
    reading.bucket.store.put("one", reading.body[:3500])
    await reading.ask_in_turn("one", range(3))
    assert reading.failed == [("one", 1000, 3000)]
    reading.ask("one", 3000, 1000, "lost")
    await settled()
    assert reading.answers.given["lost"] == (b"", pb.GENERIC)
    assert reading.failed[-1][:2] == ("one", 3000)


@virtual_time
async def test_a_peer_that_reads_slowly_keeps_its_block_alone() -> None:
    reading = Reading(part_size=8000)
    await reading.ask_in_turn("one", range(4))
    held: list[memoryview] = []

    async def answer(data: memoryview, code: int) -> None:
        held.append(data)

    reading.responder.submit(RequestedBlock("one", 2000, 1000, 8000), answer)
    await settled()
    assert held[0] == reading.body[2000:3000] and len(memoryview(held[0].obj)) == 1000


@virtual_time
async def test_a_failed_read_is_not_kept() -> None:
    reading = Reading(part_size=8000)
    await reading.ask_in_turn("one", range(1))
    reading.bucket.fault = fail_once("get", Fault.UNREACHABLE)
    reading.ask("one", 1000, 1000, "failed")
    await settled()
    assert reading.answers.given["failed"] == (b"", pb.GENERIC)
    await reading.ask_in_turn("one", range(1, 8), label="again")
    assert reading.failed == []
