"""Segments of the log that are there and damaged: they are told from missing and from newer ones, healed, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import crc32c
import pytest

from tests.file_infos import device, directory, entry, file
from tests.index.gateways import SimulatedGateway
from tests.simulated import Call, Fault, Phase, SimulatedBucket, SimulatedClock, SimulatedStore, deny_deletions
from tests.sync.fakes import has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import DataError, LogWentBack, SegmentDamaged, StoreError, StoreUnreachable, UnknownFormat
from untrusted_s3.index.segment import MAGIC
from untrusted_s3.index.trimming import trim
from untrusted_s3.store.bucket import MAX_WHOLE_OBJECT
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.healing import heal

pytestmark = virtual_time

INFOS = [file(number) for number in range(4)]


async def announce(folder: Folder, number: int, info: FileInfo) -> None:
    """Let a device that has one file share the folder and announce it."""
    one = Device(number)
    one.take(info)
    one.share(folder)
    await one.announce(folder, 10)
    await settled()


async def filled(directory: Path) -> SimulatedStore:
    """Return a store whose log has four segments with a file each, written with the state in `directory`."""
    store = SimulatedStore()
    folder = new_folder(RECORD, SimulatedBucket(store), directory)
    await folder.open()
    async with working(folder):
        for number, info in enumerate(INFOS, 1):
            await announce(folder, number, info)
            assert folder.position == number
    return store


def flipped(body: bytes) -> bytes:
    return body[:40] + bytes([body[40] ^ 1]) + body[41:]


def cut(body: bytes) -> bytes:
    return body[:-5]


def foreign(body: bytes) -> bytes:
    return b"<html>no segment</html>"


def other_version(body: bytes) -> bytes:
    """Alter only the byte that tells the version."""
    return body[:7] + bytes([body[7] ^ 0x40]) + body[8:]


def newer(body: bytes) -> bytes:
    """A segment as a newer program might write it."""
    body = MAGIC[:-1] + b"\x07" + body[8:-4] + b"more"
    return body + crc32c.crc32c(body).to_bytes(4, "big")


def damage(store: SimulatedStore, position: int, how: Callable[[bytes], bytes]) -> bytes:
    """Damage a segment that was written an hour ago."""
    body = how(store.body(KEYS.segment(position)))
    store.put(KEYS.segment(position), body, begun=store.clock() - 3600)
    return body


async def healed(folder: Folder) -> Folder:
    with pytest.raises(SegmentDamaged):
        await folder.open()
    await folder.heal()
    await folder.open()
    return folder


@pytest.mark.parametrize("how", [flipped, cut, foreign, other_version])
async def test_a_damaged_segment_is_passed_over_and_kept(how: Callable[[bytes], bytes], tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    body = damage(store, 2, how)
    folder = await healed(new_folder(RECORD, SimulatedBucket(store), tmp_path / "2"))
    assert [has(folder, info) for info in INFOS] == [True, False, True, True]
    (kept,) = store.keys(f"{KEYS.base}damaged/")
    assert kept == KEYS.damaged_segment(2, body) and store.body(kept) == body
    assert KEYS.segment(2) not in store.objects
    async with working(folder):
        for number, info in enumerate(INFOS, 1):
            await announce(folder, number, info)
        assert all(has(folder, info) for info in INFOS), "the device sends what the damaged one said"
    fresh = new_folder(RECORD, SimulatedBucket(store), tmp_path / "3")
    await fresh.open()
    assert all(has(fresh, info) for info in INFOS), "readers do not come to the gap"
    fresh.close()


async def test_what_the_local_state_knows_of_it_is_not_lost(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    damage(store, 4, flipped)
    folder = await healed(new_folder(RECORD, SimulatedBucket(store), tmp_path))
    assert all(has(folder, info) for info in INFOS)
    folder.close()


async def test_a_damaged_segment_that_another_gateway_has_written_is_noticed_while_running(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    await folder.open()
    async with working(folder):
        store.put(KEYS.segment(5), b"damaged")
        with pytest.raises(SegmentDamaged):
            await folder.until_damaged()


async def test_what_a_checkpoint_covers_is_safe(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    writer = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    await writer.log.load()
    await writer.log.checkpoint()
    writer.close()
    damage(store, 2, flipped)
    damage(store, 4, flipped)
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    await folder.open()
    assert all(has(folder, info) for info in INFOS) and folder.position == 4
    folder.close()


async def test_what_a_newer_program_wrote_is_no_damage(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    body = damage(store, 3, newer)
    before = dict(store.objects)
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    with pytest.raises(UnknownFormat):
        await folder.open()
    with pytest.raises(UnknownFormat):
        await folder.heal()
    assert store.objects == before and store.body(KEYS.segment(3)) == body
    folder.close()


async def test_a_segment_that_belongs_elsewhere_is_kept_too(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    body = damage(store, 3, lambda _: store.body(KEYS.segment(1)))
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    with pytest.raises((LogWentBack, SegmentDamaged)):
        await folder.open()
    await folder.heal()
    await folder.open()
    assert [has(folder, info) for info in INFOS] == [True, True, False, True]
    assert store.keys(f"{KEYS.base}damaged/") == [KEYS.damaged_segment(3, body)]
    folder.close()


class OnceWrong(SimulatedBucket):
    """The first read of a key gives other bytes than are stored."""

    def __init__(self, store: SimulatedStore, key: str) -> None:
        super().__init__(store)
        self._key: str | None = key

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        body = await super().get(key, start, size, max_size=max_size)
        if key == self._key:
            self._key = None
            return flipped(body)
        return body


async def test_one_wrong_answer_is_no_damage(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    folder = new_folder(RECORD, OnceWrong(store, KEYS.segment(2)), tmp_path / "2")
    await folder.open()
    assert all(has(folder, info) for info in INFOS)
    folder.close()


async def test_a_crash_before_the_damaged_one_is_moved_loses_nothing_of_it(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    body = damage(store, 2, flipped)

    def fault(call: Call) -> Fault | None:
        return Fault.UNREACHABLE if call.operation == "upload_file" else None

    folder = new_folder(RECORD, SimulatedBucket(store, fault=fault), tmp_path / "2")
    with pytest.raises(StoreUnreachable):
        await folder.heal()
    folder.close()
    assert store.body(KEYS.segment(2)) == store.body(KEYS.damaged_segment(2, body)) == body
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    await folder.heal()
    await folder.open()
    assert KEYS.segment(2) not in store.objects
    folder.close()


async def test_two_gateways_heal_one_damaged_segment(tmp_path: Path) -> None:
    """The other one has copied it before, and finds it gone or something else in its place."""
    store = await filled(tmp_path / "1")
    body = damage(store, 2, flipped)
    first, second = (new_folder(RECORD, SimulatedBucket(store), tmp_path / str(number)) for number in (2, 3))
    other = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    kept = (await other.log.salvage()).kept
    await healed(first)
    store.put(KEYS.segment(2), b"something else")
    await other.log.remove_kept(kept)
    assert store.body(KEYS.segment(2)) == b"something else"
    del store.objects[KEYS.segment(2)]
    await other.log.remove_kept(kept)
    other.close()
    assert store.keys(f"{KEYS.base}damaged/") == [KEYS.damaged_segment(2, body)]
    await second.open()
    assert second.own_index == first.own_index
    first.close()
    second.close()


@pytest.mark.parametrize("later", [0.0, 1799.0, 4000.0])
@pytest.mark.parametrize("is_last", [False, True])
async def test_a_writer_that_stalls_takes_the_place_of_no_segment(tmp_path: Path, later: float, is_last: bool) -> None:
    """It has seen that a position is free; another one writes there, and that is damaged and healed before its PUT."""
    store = await filled(tmp_path / "1")
    clock = cast(SimulatedClock, store.clock)
    gateways = [SimulatedGateway(SimulatedBucket(store), number, tmp_path) for number in (1, 2, 3)]
    stalled, other, healer = (gateway.log for gateway in gateways)
    for log in (stalled, other):
        await log.load()
    key, mine = KEYS.segment(5), entry(directory("of the one that stalls"))
    held = False

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal held
        if (call.operation, call.key, phase, held) != ("put", key, Phase.REQUEST, False):
            return
        held = True
        await other.append([entry(directory("of the other"))])
        if not is_last:
            await other.append([entry(directory("later"))])
        store.put(key, flipped(store.body(key)))
        clock.now += later
        await heal(healer_bucket, KEYS, healer, gateways[2].state, LossNotes(healer_bucket, KEYS, device(3)))
        assert store.keys(f"{KEYS.base}damaged/")
        await trim(healer_bucket, KEYS, 3600.0)

    healer_bucket = gateways[2].bucket
    gateways[0].bucket.gate = gate
    with contextlib.suppress(StoreError, DataError):
        await stalled.append([mine])
        fresh = SimulatedGateway(SimulatedBucket(store), 4, tmp_path)
        await fresh.log.load()
        assert fresh.state.entry(mine.file_info.name) is not None, "it believes that the log has it"
        fresh.close()
    assert held
    clock.now += 3600.0
    await trim(healer_bucket, KEYS, 3600.0)
    assert key not in store.objects, "it is gone as soon as nobody can take its place"
    for gateway in gateways:
        gateway.close()


def large(body: bytes) -> bytes:
    """More than is read of any segment, and of which copies are made in parts."""
    return body + bytes(MAX_WHOLE_OBJECT)


async def test_an_object_too_large_to_be_read_is_copied_inside_the_store(tmp_path: Path) -> None:
    """And it is copied once, though another gateway has copied it before."""
    store = await filled(tmp_path / "1")
    body = damage(store, 2, large)
    other = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    kept = (await other.log.salvage()).kept
    assert other.bucket.count("upload_part_copy") == 3
    folder = await healed(new_folder(RECORD, SimulatedBucket(store), tmp_path / "2"))
    assert [has(folder, info) for info in INFOS] == [True, False, True, True]
    assert store.keys(f"{KEYS.base}damaged/") == list(kept.values()) and not store.uploads
    assert store.body(kept[KEYS.segment(2)]) == body
    assert KEYS.segment(2) not in store.objects
    store.put(KEYS.segment(2), b"something else")
    await other.log.remove_kept(kept)
    assert store.body(KEYS.segment(2)) == b"something else"
    other.close()
    folder.close()


async def test_a_large_object_that_a_newer_program_may_have_written_is_no_damage(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    damage(store, 2, lambda body: large(newer(body)))
    folder = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2")
    for attempt in (folder.open, folder.heal):
        with pytest.raises(UnknownFormat):
            await attempt()
    assert KEYS.segment(2) in store.objects
    folder.close()


async def test_without_the_right_to_delete_it_stays_in_its_place_and_the_folder_goes_on(tmp_path: Path) -> None:
    store = await filled(tmp_path / "1")
    body = damage(store, 2, flipped)
    folder = await healed(new_folder(RECORD, SimulatedBucket(store, fault=deny_deletions), tmp_path / "2"))
    assert store.body(KEYS.segment(2)) == store.body(KEYS.damaged_segment(2, body)) == body
    async with working(folder):
        for number, info in enumerate(INFOS, 1):
            await announce(folder, number, info)
        assert all(has(folder, info) for info in INFOS)
    for number in range(2):
        fresh = new_folder(RECORD, SimulatedBucket(store), tmp_path / f"3-{number}")
        await fresh.open()
        assert all(has(fresh, info) for info in INFOS), "readers begin behind it"
        fresh.close()
