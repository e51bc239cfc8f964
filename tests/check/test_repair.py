"""Each kind of damage is repaired as far as anybody still has what is lost, and the rest is named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from tests.check.damaged import KEYS, NODE, PEER, Damage, FilledStore, delete, flip_bit, swap, truncate
from tests.file_infos import device
from tests.loops import one_loop
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedClock
from tests.sync.fakes import new_folder
from tests.vault.stored_folder import PASSWORD
from untrusted_s3.check.scrub_record import ScrubRecord
from untrusted_s3.check.share import ALL
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.gateway.folder_records import FolderRecords as GatewayRecords
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.problem import Kind
from untrusted_s3.repair.action import Action, Remedy
from untrusted_s3.repair.folder import RepairOptions
from untrusted_s3.repair.store import StoreRepair
from untrusted_s3.settings import Settings
from untrusted_s3.store.layout import QUOTAS, RETENTION, STORE, FolderKeys
from untrusted_s3.store.records import FolderRecord, read_record, write_record
from untrusted_s3.vault.lost_record import make_record


class World:
    """A store, a copy of it from before the damage, and its repair."""

    def __init__(self, filled: FilledStore, second: FilledStore, directory: Path) -> None:
        self.filled = filled
        self.second = second
        self.bucket = filled.bucket
        self.clock = cast(SimulatedClock, self.bucket.store.clock)
        self.directory = directory
        self.writers: dict[str, SimulatedBucket] = {}

    async def repair(self, *, other: bool = False, apply: bool = True, gateway: bool = False) -> dict[str, Remedy]:
        """Repair the store an hour later, after a dry run, which must announce the same and write nothing."""
        self.clock.now += 3600
        objects = dict(self.bucket.store.objects)
        planned = await self.carry_out(other=other, apply=False, gateway=gateway)
        assert self.bucket.store.objects == objects
        if not apply:
            return {action.path: action.remedy for action in planned}
        done = await self.carry_out(other=other, apply=True, gateway=gateway)
        assert [(one.path, one.remedy) for one in planned] == [(one.path, one.remedy) for one in done]
        return {action.path: action.remedy for action in done}

    async def carry_out(self, *, other: bool, apply: bool, gateway: bool) -> list[Action]:
        """Repair the store, or only say what would be done."""
        bucket = SimulatedBucket(self.bucket.store)
        options = RepairOptions(apply, ALL, gateway, Settings())
        repair = StoreRepair(bucket, SimulatedBucket(self.second.bucket.store) if other else None, options)
        return [action async for action in repair.run()]

    async def writer(self, name: str) -> FolderLog:
        """Return the log of a gateway that has come to its end. `writers` has its bucket."""
        self.writers[name] = SimulatedBucket(self.bucket.store)
        state = FolderState(self.directory / f"{name}.sqlite")
        log = FolderLog(self.writers[name], KEYS, state, device(8), clock=self.clock)
        await log.load()
        return log

    async def left(self) -> dict[str, Kind]:
        """Return what a check finds damaged."""
        return {finding.path: finding.kind for finding in await self.filled.findings(ALL) if finding.kind.is_damage}

    async def state(self) -> FolderState:
        """Return what the folder has."""
        state = FolderState(self.directory / "end.sqlite")
        await load_newest(SimulatedBucket(self.bucket.store), KEYS, state)
        return state


@pytest.fixture
async def world(filled: FilledStore, sound: FilledStore, directory: Path) -> World:
    second = directory / "second"
    second.mkdir()
    return World(filled, await sound.copy(second), directory)


async def test_nothing_is_done_to_a_sound_store(world: World) -> None:
    objects = dict(world.bucket.store.objects)
    assert await world.repair(other=True) == {}
    assert world.bucket.store.objects == objects


def older_copy(bucket: SimulatedBucket, key: str) -> None:
    """Put something of before in its place."""
    bucket.store.put(key, b"what was there before")


DAMAGES = [flip_bit, truncate, delete, older_copy]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["small", "large"])
async def test_an_object_is_copied_from_another_store(world: World, name: str, damage: Damage) -> None:
    key = world.filled.key(getattr(world.filled, name))
    damage(world.bucket, key)
    assert await world.repair(other=True) == {key: Remedy.COPIED}
    assert await world.left() == {}
    assert world.bucket.store.body(key) == world.second.bucket.store.body(key)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["small", "large"])
async def test_without_one_the_file_is_taken_back(world: World, name: str, damage: Damage) -> None:
    entry = getattr(world.filled, name)
    key = world.filled.key(entry)
    damage(world.bucket, key)
    assert await world.repair() == {key: Remedy.TAKEN_BACK}
    assert await world.left() == {key: Kind.FILE_MISSING}
    state = await world.state()
    assert state.entry(entry.file_info.name) is None
    assert [missing.name for missing in state.missing()] == [entry.file_info.name]
    state.close()
    # A later repair finds nothing more, or another store that has it.
    assert await world.repair() == {key: Remedy.NONE}
    assert await world.repair(other=True) == {key: Remedy.COPIED}
    assert await world.left() == {}
    state = await world.state()
    found = state.entry(entry.file_info.name)
    assert found is not None
    assert found.file_info == entry.file_info
    state.close()


async def test_exchanged_objects(world: World) -> None:
    keys = [world.filled.key(entry) for entry in (world.filled.small, world.filled.other)]
    swap(world.bucket, *keys)
    flip_bit(world.second.bucket, keys[0])
    assert await world.repair(other=True) == {keys[0]: Remedy.TAKEN_BACK, keys[1]: Remedy.COPIED}
    assert await world.left() == {keys[0]: Kind.FILE_MISSING}


@pytest.mark.parametrize("damage", [flip_bit, truncate, older_copy])
@pytest.mark.parametrize("position", [4, 6])
async def test_a_checkpoint_is_written_again(world: World, position: int, damage: Damage) -> None:
    key = KEYS.checkpoint(position)
    before = world.bucket.store.body(key)
    damage(world.bucket, key)
    assert await world.repair() == {key: Remedy.WRITTEN}
    assert await world.left() == {}
    assert len(world.bucket.store.body(key)) == len(before)


async def test_a_checkpoint_that_the_log_does_not_tell_is_moved(world: World) -> None:
    flip_bit(world.bucket, KEYS.checkpoint(2))
    body = world.bucket.store.body(KEYS.checkpoint(2))
    assert (await world.repair())[KEYS.checkpoint(2)] is Remedy.MOVED
    assert await world.left() == {}
    (kept,) = world.bucket.store.keys(KEYS.damaged_segments)
    assert world.bucket.store.body(kept) == body


@pytest.mark.parametrize("damage", [flip_bit, truncate, older_copy])
@pytest.mark.parametrize("gateway", [False, True])
async def test_a_segment_that_a_checkpoint_covers_is_moved(world: World, damage: Damage, gateway: bool) -> None:
    key = KEYS.segment(4)
    damage(world.bucket, key)
    assert await world.repair(gateway=gateway) == {key: Remedy.MOVED}
    assert await world.left() == {}
    state = await world.state()
    assert state.totals.files == 4
    state.close()


@pytest.mark.parametrize("damage", [flip_bit, truncate, older_copy])
async def test_a_segment_that_no_checkpoint_covers_is_healed(world: World, damage: Damage) -> None:
    key = KEYS.segment(8)
    damage(world.bucket, key)
    assert await world.repair() == {key: Remedy.HEALED}
    assert await world.left() == {}
    assert world.bucket.store.keys(KEYS.losses)
    state = await world.state()
    assert state.totals.files == 3, "the last file comes again from its device"
    assert state.index_id != 1
    state.close()


async def test_a_gap_is_healed(world: World) -> None:
    delete(world.bucket, KEYS.segment(7))
    assert await world.repair() == {KEYS.segment(7): Remedy.HEALED}
    assert await world.left() == {}
    state = await world.state()
    assert state.totals.files == 4
    state.close()


async def test_a_gap_is_left_to_a_gateway_that_runs(world: World) -> None:
    delete(world.bucket, KEYS.segment(7))
    assert await world.repair(gateway=True) == {KEYS.segment(7): Remedy.LEFT}


async def test_a_log_is_healed_before_files_are_taken_back(world: World) -> None:
    delete(world.bucket, KEYS.segment(7))
    key = world.filled.key(world.filled.small)
    flip_bit(world.bucket, key)
    assert await world.repair() == {KEYS.segment(7): Remedy.HEALED, key: Remedy.TAKEN_BACK}
    assert await world.left() == {key: Kind.FILE_MISSING}
    assert await world.repair(other=True) == {key: Remedy.COPIED}
    assert await world.left() == {}


async def test_everything_at_once(world: World) -> None:
    for key in (KEYS.checkpoint(2), KEYS.checkpoint(4), KEYS.segment(5), KEYS.segment(8), PEER, NODE, KEYS.record):
        older_copy(world.bucket, key)
    for entry in (world.filled.small, world.filled.large):
        flip_bit(world.bucket, world.filled.key(entry))
    world.clock.now += 3600
    await world.carry_out(other=True, apply=True, gateway=False)
    assert await world.left() == {}


RECORDS: list[tuple[str, bool, Remedy]] = [
    (STORE, False, Remedy.WRITTEN),
    (PEER, False, Remedy.NONE),
    (PEER, True, Remedy.COPIED),
    (NODE, False, Remedy.DELETED),
    (KEYS.record, False, Remedy.NONE),
    (KEYS.record, True, Remedy.COPIED),
    (QUOTAS, False, Remedy.NONE),
    (QUOTAS, True, Remedy.COPIED),
    (RETENTION, False, Remedy.NONE),
    (RETENTION, True, Remedy.COPIED),
    (KEYS.retention, False, Remedy.NONE),
    (KEYS.retention, True, Remedy.COPIED),
    (KEYS.history, False, Remedy.NONE),
    (KEYS.history, True, Remedy.COPIED),
    (KEYS.scrub, False, Remedy.DELETED),
]


@pytest.mark.parametrize(("key", "other", "remedy"), RECORDS)
@pytest.mark.parametrize("damage", [truncate, older_copy])
async def test_records(
    world: World, key: str, other: bool, remedy: Remedy, damage: Callable[[SimulatedBucket, str], None]
) -> None:
    await write_record(world.bucket, KEYS.scrub, ScrubRecord(device(1), 1, 1).to_json())
    damage(world.bucket, key)
    assert await world.repair(other=other) == {key: remedy}
    assert set(await world.left()) == ({key} if remedy is Remedy.NONE else set())


async def test_an_unreadable_other_store_is_no_help(world: World) -> None:
    key = world.filled.key(world.filled.small)
    delete(world.bucket, key)
    assert await world.repair() == {key: Remedy.TAKEN_BACK}
    older_copy(world.second.bucket, KEYS.segment(8))
    assert await world.repair(other=True) == {key: Remedy.NONE}


# Writers that stall

DELAYS = [0, 1799, 4000]


@one_loop
@pytest.mark.parametrize("stalled", [0, 800])
@pytest.mark.parametrize("repaired", DELAYS)
@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("is_covered", [False, True])
async def test_a_writer_that_stalls_loses_nothing(
    world: World, stalled: int, repaired: int, goes_on: bool, is_covered: bool
) -> None:
    """It has seen that a position is free; others write there, and that is damaged and repaired before its PUT comes.

    What it believes to have written is in the log.
    """
    log, bucket, clock = await world.writer("stalled"), SimulatedBucket(world.bucket.store), world.clock
    others = await world.writer("others")
    key, held = KEYS.segment(9), False

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal held
        if (call.operation, call.key, phase, held) != ("put", key, Phase.REQUEST, False):
            return
        held = True
        await others.append([world.filled.folder.directory("of others")])
        if is_covered:
            await others.checkpoint()
        if goes_on:
            await others.append([world.filled.folder.directory("later")])
        flip_bit(bucket, key)
        clock.now += repaired
        await world.carry_out(other=False, apply=True, gateway=False)

    world.writers["stalled"].gate = gate
    clock.now += stalled
    mine = world.filled.folder.directory("of the one that stalls")
    with contextlib.suppress(StoreError, DataError):
        await log.append([mine])
        state = await world.state()
        try:
            assert state.entry(mine.file_info.name) is not None, "it believes that the log has it"
        finally:
            state.close()
    assert held
    clock.now += 3600
    await world.carry_out(other=False, apply=True, gateway=False)
    clock.now += 25 * 3600
    await world.carry_out(other=False, apply=True, gateway=False)
    assert await world.left() == {}


async def test_a_writer_that_comes_back_does_not_take_the_place_of_the_last_segment(world: World) -> None:
    """It has applied all before the last segment, which others wrote, covered by a checkpoint, and lost to damage."""
    log, others = await world.writer("away"), await world.writer("others")
    await others.append([world.filled.folder.directory("of others")])
    await others.checkpoint()
    flip_bit(world.bucket, KEYS.segment(9))
    mine = world.filled.folder.directory("of the one that was away")
    for hours in (1, 11, 14):
        world.clock.now += hours * 3600
        await world.carry_out(other=False, apply=True, gateway=False)
        with contextlib.suppress(DataError):
            await log.append([mine])
        state = await world.state()
        try:
            assert state.entry(world.filled.folder.directory("of others").file_info.name) is not None
        finally:
            state.close()
    state = await world.state()
    assert state.entry(mine.file_info.name) is not None
    state.close()


# The record of a folder


LOSSES = [truncate, delete, older_copy]


async def lose_record(world: World, damage: Damage) -> FolderRecord:
    """Damage the record of the folder, and repair what can be. Return the record from before."""
    before = await read_record(world.bucket, KEYS.record, FolderRecord.from_json)
    assert before is not None
    damage(world.bucket, KEYS.record)
    damaged = [world.bucket.store.body(KEYS.record)] if damage is not delete else []
    assert await world.repair() == {KEYS.record: Remedy.NONE}
    assert await world.repair(gateway=True) == {KEYS.record: Remedy.MOVED if damaged else Remedy.LEFT}
    assert await world.left() == {KEYS.record: Kind.RECORD}
    assert await world.repair(gateway=True) == {KEYS.record: Remedy.LEFT}
    kept = world.bucket.store.keys(KEYS.damaged_segments)
    assert [world.bucket.store.body(key) for key in kept] == damaged
    return before


@pytest.mark.parametrize("damage", LOSSES)
async def test_a_gateway_writes_a_folder_record_again(world: World, damage: Damage) -> None:
    record = await read_record(world.bucket, KEYS.record, FolderRecord.from_json)
    assert record is not None
    folder = new_folder(record, SimulatedBucket(world.bucket.store), world.directory / "open")
    await folder.open()
    body = world.bucket.store.body(KEYS.record)
    await lose_record(world, damage)
    records = GatewayRecords(SimulatedBucket(world.bucket.store), 10, 10)
    records.was_there("folder", folder.position)
    assert await records.write_again(folder)
    assert world.bucket.store.body(KEYS.record) == body
    folder.close()
    assert await world.left() == {}


@pytest.mark.parametrize("damage", LOSSES)
async def test_a_folder_record_is_made_again_with_the_password(world: World, damage: Damage) -> None:
    before = await lose_record(world, damage)
    for password, remedy in (("wrong", Remedy.NONE), (PASSWORD, Remedy.WRITTEN)):
        make = {KEYS: partial(make_record, folder_id="folder", password=password)}
        options = RepairOptions(apply=True, share=None, gateway_runs=False, settings=Settings())
        repair = StoreRepair(SimulatedBucket(world.bucket.store), None, options, make)
        assert [action.remedy async for action in repair.run(["folder"])] == [remedy]
    assert await world.left() == {}
    record = await read_record(world.bucket, KEYS.record, FolderRecord.from_json)
    assert record is not None
    assert (record.folder_id, record.token) == ("folder", before.token)
    folder = new_folder(record, SimulatedBucket(world.bucket.store), world.directory / "again")
    await folder.open()
    assert folder.totals.files == 4
    folder.close()


async def test_exchanged_folder_records(world: World) -> None:
    other = FolderKeys.of("other")
    theirs = FolderRecord("other", "", b"token").to_json()
    await write_record(world.bucket, other.record, theirs)
    bodies = {key: world.bucket.store.body(key) for key in (KEYS.record, other.record)}
    swap(world.bucket, KEYS.record, other.record)
    assert await world.repair() == {KEYS.record: Remedy.WRITTEN, other.record: Remedy.WRITTEN}
    assert await world.left() == {}
    assert {key: world.bucket.store.body(key) for key in bodies} == bodies
