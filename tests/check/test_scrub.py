"""The scrub reads everything once in a period, goes on after a restart, and has damage taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import structlog

from tests.check.damaged import KEYS, Damage, FilledStore, delete, flip_bit
from tests.file_infos import device
from tests.simulated import SimulatedBucket, SimulatedClock
from tests.sync.fakes import new_folder
from tests.virtual_time import virtual_time
from untrusted_s3.check.scrub_record import ScrubRecord
from untrusted_s3.counters import Counters
from untrusted_s3.gateway.log_scrub import scrub_log
from untrusted_s3.gateway.scrub import Scrub
from untrusted_s3.problem import Kind
from untrusted_s3.repair.action import Remedy
from untrusted_s3.repair.folder import RepairOptions
from untrusted_s3.repair.store import StoreRepair
from untrusted_s3.settings import LogSettings, ScrubSettings, Settings
from untrusted_s3.store.records import FolderRecord, read_record, write_record
from untrusted_s3.sync.folder import Folder
from untrusted_s3.units import DAY

PERIOD = 30 * DAY
pytestmark = virtual_time


def older_copy(bucket: SimulatedBucket, key: str) -> None:
    """Put another checkpoint in its place."""
    bucket.store.put(key, bucket.store.body(KEYS.checkpoint(2)))


class OpenFolders:
    """One open folder, until it is closed."""

    def __init__(self, folder: Folder) -> None:
        self.folder: Folder | None = folder

    def by_id(self) -> list[tuple[str, Folder]]:
        return [("folder", self.folder)] if self.folder is not None else []

    def get(self, folder_id: str) -> Folder | None:
        return self.folder


class World:
    """A folder of the filled store that a gateway has open."""

    def __init__(self, filled: FilledStore, folder: Folder) -> None:
        self.filled = filled
        self.store = filled.bucket.store
        self.folder = folder
        self.folders = OpenFolders(folder)
        self.clock = cast(SimulatedClock, self.store.clock)

    def scrub(self, number: int = 1, settings: ScrubSettings | None = None) -> tuple[Scrub, SimulatedBucket]:
        """Return the scrub of a gateway, and its bucket."""
        bucket = SimulatedBucket(self.store)
        scrub = Scrub(bucket, self.folders, device(number), PERIOD, Counters(), settings or ScrubSettings())
        return scrub, bucket

    def read(self, bucket: SimulatedBucket) -> list[str]:
        """Return the keys of the objects that were read, in order."""
        return list(dict.fromkeys(call.key for call in bucket.calls if call.key.startswith(KEYS.objects)))

    async def record(self) -> ScrubRecord:
        """Return the record in the store."""
        found = await read_record(SimulatedBucket(self.store), KEYS.scrub, ScrubRecord.from_json)
        assert found is not None
        return found


@pytest.fixture
async def world(filled: FilledStore, directory: Path) -> AsyncIterator[World]:
    record = await read_record(filled.bucket, KEYS.record, FolderRecord.from_json)
    assert record is not None
    folder = new_folder(record, filled.bucket, directory)
    await folder.open()
    yield World(filled, folder)
    folder.close()


async def test_all_is_read_once_in_a_period(world: World) -> None:
    scrub, bucket = world.scrub()
    await scrub.turn()
    assert world.read(bucket) == []
    counts = []
    for _ in range(60):
        world.clock.now += PERIOD / 60
        await scrub.turn()
        counts.append(len(world.read(bucket)))
    objects = [key for key in world.store.keys(KEYS.objects) if key != unused(world)]
    assert sorted(world.read(bucket)) == objects
    assert len(set(counts)) > 2, "not all at once"
    status = scrub.status("folder")
    assert status is not None
    assert (status["progress"], status["objects"], status["damaged"]) == (0.0, 0, 0), "the next round"
    assert status["finished"] is not None
    puts = [call for call in bucket.calls if call.operation == "put"]
    assert len(puts) <= 33, "progress is written once a day"


def unused(world: World) -> str:
    """Return the key of the object that only an earlier version names."""
    named = {
        stored.object_name
        for _, objects in world.folder.stored_after(bytes(16), b"\xff" * 16, 99)
        for stored in objects
    }
    (found,) = [key for key in world.store.keys(KEYS.objects) if key.rpartition("/")[2] not in named]
    return found


async def test_a_large_folder_takes_several_turns(world: World) -> None:
    scrub, bucket = world.scrub(settings=ScrubSettings(bytes_in_turn=1, names_at_once=1))
    await scrub.turn()
    world.clock.now += PERIOD - 1
    turns = 1
    while await scrub.turn():
        turns += 1
    assert turns == 5
    assert len(world.read(bucket)) == 4


async def test_a_restart_goes_on(world: World) -> None:
    scrub, bucket = world.scrub()
    await scrub.turn()
    for _ in range(15):
        world.clock.now += 1.01 * DAY
        await scrub.turn()
    before = world.read(bucket)
    again, bucket = world.scrub()
    for _ in range(15):
        world.clock.now += 1.01 * DAY
        await again.turn()
    assert len(before) + len(world.read(bucket)) == 4
    assert not {*before} & {*world.read(bucket)}


async def test_one_gateway_scrubs_and_another_takes_over(world: World) -> None:
    first, _ = world.scrub(1)
    second, bucket = world.scrub(2)
    for _ in range(10):
        await first.turn()
        await second.turn()
        world.clock.now += DAY
    assert world.read(bucket) == []
    status = second.status("folder")
    assert status is not None
    assert status["device_id"] == str(device(1))
    for _ in range(25):
        world.clock.now += DAY
        await second.turn()
    assert world.read(bucket) != []
    assert (await world.record()).writer == device(2)


@pytest.mark.parametrize("damage", [flip_bit, delete])
async def test_damage_is_taken_back(world: World, damage: object) -> None:
    key = world.filled.key(world.filled.large)
    assert callable(damage)
    damage(world.filled.bucket, key)
    scrub, _ = world.scrub()
    await scrub.turn()
    world.clock.now += PERIOD / 2
    await scrub.turn()
    world.clock.now += PERIOD / 2 - 1
    await scrub.turn()
    status = scrub.status("folder")
    assert status is not None
    assert status["damaged"] == 1
    assert (await world.record()).damaged == 1, "it is written down at once"
    work = asyncio.ensure_future(world.folder.tasks()["take back missing objects"]())
    await asyncio.sleep(60)
    work.cancel()
    assert [found for _, found in world.folder.missing_examples(5)] == [key]


async def test_a_damaged_segment_is_covered_by_what_a_gateway_knows(world: World) -> None:
    flip_bit(world.filled.bucket, KEYS.segment(8))
    scrub, bucket = world.scrub()
    await scrub.turn()
    assert KEYS.checkpoint(world.folder.position) in world.store.objects
    findings = await world.filled.findings()
    assert [(finding.path, finding.kind) for finding in findings] == [(KEYS.segment(8), Kind.SEGMENT_DAMAGED)]
    options = RepairOptions(apply=True, share=None, gateway_runs=True, settings=Settings())
    for remedy in (Remedy.LATER, Remedy.MOVED):
        repair = StoreRepair(world.filled.bucket, None, options)
        assert [action.remedy async for action in repair.run()] == [remedy]
        world.clock.now += 1.1 * DAY
    assert [finding for finding in await world.filled.findings() if finding.kind.is_damage] == []
    await scrub.turn()
    bucket.calls.clear()
    await scrub.turn()
    assert bucket.calls == [], "idle minutes cost nothing"


@pytest.mark.parametrize("damage", [flip_bit, older_copy])
async def test_checkpoints_are_compared_with_the_log_once_in_a_round(world: World, damage: Damage) -> None:
    damage(world.filled.bucket, KEYS.checkpoint(4))
    scrub, bucket = world.scrub()
    with structlog.testing.capture_logs() as logs:
        for _ in range(32):
            await scrub.turn()
            world.clock.now += DAY
    found = [one["key"] for one in logs if one["event"] == "scrub found damage in the log"]
    assert found == [KEYS.checkpoint(4)]
    reads = [call.key for call in bucket.calls if call.operation == "download_file"]
    assert sorted(reads) == [KEYS.checkpoint(position) for position in (2, 4, 6)]
    status = scrub.status("folder")
    assert status is not None
    assert status["log_checked"] is not None
    again, bucket = world.scrub()
    for _ in range(10):
        await again.turn()
        world.clock.now += DAY
    assert bucket.count("download_file") == 0, "it is written down"
    assert [path.name for path in world.folder.directory.iterdir() if path.is_dir()] == []


async def test_the_log_is_checked_slowly(world: World) -> None:
    """It rests as long as it works, after each segment, and ends if the folder is closed."""
    pauses: list[float] = []

    async def rest(seconds: float) -> None:
        pauses.append(seconds)

    arguments = world.filled.bucket, KEYS, world.folder.directory, LogSettings()
    assert await scrub_log(*arguments, rest, lambda: True) == 0
    segments = len(world.store.keys(KEYS.segments))
    assert len(pauses) == segments
    assert await scrub_log(*arguments, rest, lambda: len(pauses) < segments + 2) is None
    assert len(pauses) == segments + 2
    flip_bit(world.filled.bucket, KEYS.checkpoint(2))
    assert await scrub_log(*arguments, rest, lambda: True) == 1


async def test_a_damaged_record_is_written_again(world: World) -> None:
    world.store.put(KEYS.scrub, b"{}")
    scrub, _ = world.scrub()
    await scrub.turn()
    assert (await world.record()).writer == device(1)
    future = ScrubRecord(device(1), 0, int(world.clock.now + DAY))
    await write_record(world.filled.bucket, KEYS.scrub, future.to_json())
    await world.scrub()[0].turn()


async def test_a_folder_that_is_closed_meanwhile_is_left_alone(world: World) -> None:
    scrub, bucket = world.scrub()
    await scrub.turn()

    async def gate(call: object, phase: object) -> None:
        world.folders.folder = None

    bucket.gate = gate
    world.clock.now += PERIOD
    await scrub.turn()
    bucket.gate = SimulatedBucket().gate
    await scrub.turn()
    assert scrub.status("folder") is None
