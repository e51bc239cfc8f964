"""The heartbeat in the store, and another process with the same device ID."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.simulated import Call, Fault, SimulatedBucket, SimulatedClock, deny_deletions
from tests.store.memory_bucket import MemoryBucket
from tests.sync.judging_device import virtual_store
from tests.virtual_time import virtual_time
from tests.waiting import until
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.gateway.heartbeat import Heartbeat
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.format import HEARTBEAT_LIFETIME

DEVICE = DeviceID(bytes(range(32)))
KEY = layout.node_key(DEVICE)
INTERVAL = UpkeepSettings().heartbeat_interval


def heartbeat(bucket: MemoryBucket, clock: SimulatedClock, name: str = "gateway") -> Heartbeat:
    return Heartbeat(bucket, DEVICE, name, clock)


async def warnings_of(heart: Heartbeat) -> list[str]:
    with capture_logs() as log:
        await heart.beat()
    assert all(line["log_level"] == "warning" and line["advice"] for line in log)
    return [line["event"] for line in log]


async def test_it_comes_and_goes() -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    heart = heartbeat(bucket, clock)
    for _ in range(3):
        assert await warnings_of(heart) == []
        record = json.loads(bucket.objects[KEY])
        assert record["device_id"] == str(DEVICE) and record["name"] == "gateway" and record["time"] == clock.now
        clock.now += INTERVAL
    await heart.end()
    assert not bucket.objects
    assert await warnings_of(heartbeat(bucket, clock)) == []


@pytest.mark.parametrize("age", [0, 60, -60])
async def test_a_fresh_one_of_another_process_is_told_at_the_start(age: int) -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    await heartbeat(bucket, clock).beat()
    clock.now += age
    assert await warnings_of(second := heartbeat(bucket, clock)) == ["another gateway may run with this device ID"]
    clock.now += INTERVAL
    assert await warnings_of(second) == []  # the other one was dead


@pytest.mark.parametrize("age", [HEARTBEAT_LIFETIME, 1e6, -1e6])
async def test_an_old_one_is_not(age: float) -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    await heartbeat(bucket, clock).beat()
    clock.now += age
    assert await warnings_of(heartbeat(bucket, clock)) == []


async def test_two_at_a_time_are_told_by_both() -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    first, second = heartbeat(bucket, clock, "one"), heartbeat(bucket, clock, "two")
    await first.beat()
    await second.beat()
    for heart in (first, second):
        clock.now += INTERVAL
        assert await warnings_of(heart) == ["another gateway runs with this device ID"]


async def test_the_end_of_one_process_leaves_the_record_of_another() -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    first, second = heartbeat(bucket, clock, "one"), heartbeat(bucket, clock, "two")
    await first.beat()
    await second.beat()
    await first.end()
    assert json.loads(bucket.objects[KEY])["name"] == "two"
    await second.end()
    assert not bucket.objects


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12))
def test_only_the_process_that_beat_last_removes_the_record(steps: list[tuple[int, bool]]) -> None:
    """Processes of one identity beat and end in any order."""

    async def play() -> None:
        bucket, clock = MemoryBucket(), SimulatedClock()
        hearts = [heartbeat(bucket, clock, str(number)) for number in range(3)]
        owner: int | None = None
        with capture_logs():
            for number, ends in steps:
                await (hearts[number].end() if ends else hearts[number].beat())
                owner = (None if owner == number else owner) if ends else number
                assert (KEY in bucket.objects) == (owner is not None)

    asyncio.run(play())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"no JSON", b'{"instance": 1e400}'])
async def test_the_end_leaves_what_is_not_its_own(body: bytes) -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    bucket.objects[KEY] = body
    await heartbeat(bucket, clock).end()
    assert bucket.objects == {KEY: body}


STRANGE = [
    b'{"device_id": "%s", "name": "x", "time": %s}' % (str(DEVICE).encode(), time)
    for time in (b"1e400", b"-1e400", b"NaN", b"Infinity", b"1" + b"0" * 5000, b"-1", b"true", b"[]", b"1.5")
]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"device_id": "x", "time": 5}', b"[]", *STRANGE])
async def test_damage_is_written_over(body: bytes) -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    bucket.objects[KEY] = body
    assert await warnings_of(heartbeat(bucket, clock)) == []
    assert json.loads(bucket.objects[KEY])["time"] == clock.now


async def test_a_record_without_a_process_is_of_another_one() -> None:
    bucket, clock = MemoryBucket(), SimulatedClock()
    bucket.objects[KEY] = json.dumps({"device_id": str(DEVICE), "name": "x", "time": int(clock.now)}).encode()
    assert len(await warnings_of(heartbeat(bucket, clock))) == 1


async def test_it_goes_on_while_the_store_is_away() -> None:
    bucket, clock = SimulatedBucket(fault=lambda call: Fault.UNREACHABLE), SimulatedClock()
    with capture_logs() as log:
        beating = asyncio.create_task(Heartbeat(bucket, DEVICE, "gateway", clock).run(interval=0.001))
        await until(lambda: len(log) >= 3)
        bucket.fault = lambda call: None
        await until(lambda: KEY in bucket.store.objects)
    assert {line["event"] for line in log} == {"heartbeat not written"}
    assert not beating.done()
    beating.cancel()
    await asyncio.wait([beating])


async def test_without_the_right_to_delete_the_record_says_that_the_process_has_ended() -> None:
    bucket, clock = SimulatedBucket(fault=deny_deletions), SimulatedClock()
    heart = Heartbeat(bucket, DEVICE, "gateway", clock)
    await heart.beat()
    await heart.end()
    assert json.loads(bucket.store.body(KEY))["time"] == 0
    with capture_logs() as log:
        await Heartbeat(bucket, DEVICE, "gateway", clock).beat()
    assert log == []


@virtual_time
async def test_it_beats_less_often_while_nothing_happens_and_again_soon_where_it_failed() -> None:
    settings, idle = UpkeepSettings(), True
    bucket = SimulatedBucket(virtual_store())
    heart = Heartbeat(bucket, DEVICE, "gateway", lambda: 0)
    times: list[float] = []

    def fault(call: Call) -> Fault | None:
        if call.operation == "put":
            times.append(asyncio.get_running_loop().time())
            return Fault.UNREACHABLE if times[-1] > 5000 else None
        return None

    bucket.fault = fault
    beating = asyncio.create_task(
        heart.run(settings.heartbeat_interval, settings.idle_heartbeat_interval, lambda: idle)
    )
    await asyncio.sleep(1000)
    assert times == [settings.idle_heartbeat_interval * number for number in range(len(times))] and len(times) == 7
    idle = False
    times.clear()
    await asyncio.sleep(1000)
    assert len(times) == 1000 // settings.heartbeat_interval
    await asyncio.sleep(3000)
    times.clear()
    with capture_logs():
        await asyncio.sleep(1500)
    failed = [time for time in times if time > 5000]
    assert failed[1] - failed[0] < 90 - settings.heartbeat_interval, "in time for programs from before"
    beating.cancel()
    await asyncio.wait([beating])
