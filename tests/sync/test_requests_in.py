"""Peers' requests: which of them are answered, and by which reads."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from tests.file_infos import deleted, directory, encrypted_name, entry, file
from tests.simulated import Call, Fault, Phase, SimulatedBucket, fail_once
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.counters import Counters
from untrusted_s3.index.entry import Entry
from untrusted_s3.settings import ObjectSettings, SyncSettings
from untrusted_s3.sync.requests_in import Responder, matches

SYNC, OBJECTS = SyncSettings(), ObjectSettings()
FILE = file("a", sizes=(2000, 1500, 1064))
TOKEN = FILE.message.blocks[1].hash
RIGHT = RequestReceived(1, "folder", FILE.name, 2000, 1500, TOKEN, False)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hash": b""},
        {"offset": 0, "size": 2000, "hash": b""},
        {"offset": 3500, "size": 1064, "hash": FILE.message.blocks[2].hash},
    ],
    ids=str,
)
def test_a_request_for_a_stored_block(change: dict[str, object]) -> None:
    assert matches(dataclasses.replace(RIGHT, **change), entry(FILE))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1999},
        {"offset": 2001},
        {"offset": -1},
        {"offset": -2000},
        {"offset": 4564},
        {"offset": 2**62},
        {"size": 1499},
        {"size": 1501},
        {"size": 0},
        {"size": 2564, "hash": b""},
        {"hash": FILE.message.blocks[0].hash},
        {"hash": TOKEN[:-1]},
        {"name": encrypted_name("b")},
    ],
    ids=str,
)
def test_a_request_for_anything_else(change: dict[str, object]) -> None:
    assert not matches(dataclasses.replace(RIGHT, **change), entry(FILE))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "current", [entry(directory("a")), entry(deleted("a")), Entry(FILE, None)], ids=["directory", "deleted", "no data"]
)
def test_a_request_where_there_is_no_data(current: Entry) -> None:
    assert not matches(RIGHT, current)
    assert not matches(dataclasses.replace(RIGHT, offset=0, size=0, hash=b""), current)


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

    def __init__(self, settings: SyncSettings = SYNC, object_settings: ObjectSettings = OBJECTS) -> None:
        self.bucket = SimulatedBucket()
        self.body = bytes(number % 251 for number in range(100_000))
        self.bucket.store.put("one", self.body)
        self.bucket.store.put("two", self.body[::-1])
        self.responder = Responder(self.bucket, Counters(), settings, object_settings)
        self.answers = Answers()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.bucket.gate = self._gate

    async def _gate(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST:
            await self.go_on.wait()

    def ask(self, key: str, start: int, size: int, label: str = "") -> None:
        self.responder.submit(key, start, size, self.answers.to(label or f"{key} {start}"))

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
    reading = Reading(object_settings=ObjectSettings(coalesced_get_size=2500))
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

    reading.responder.submit("one", 0, 1000, answer)
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
    responder = Responder(bucket, Counters(), SYNC, OBJECTS)
    answered: list[int] = []

    async def answer(data: memoryview, code: int) -> None:
        answered.append(code)

    for offset in (0, 500):
        responder.submit("object", offset, 100, answer)
    await held.wait()
    await responder.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert bucket.count("get") == 2 and not answered
