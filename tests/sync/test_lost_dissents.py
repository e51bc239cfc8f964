"""Dissents in a store that loses objects or a part of the log: they are alive as long as their objects are there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import device, entry, file
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.simulated.store import SimulatedClock
from tests.sync.scripted_device import KEYS
from tests.virtual_time import virtual_time
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Dissent, Entry, EntryClaims, NamedObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.renewal import Plan, without_objects
from untrusted_s3.index.row import Row
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.sync.healing import Healed, heal
from untrusted_s3.sync.missing import FailedRead, MissingObjects
from untrusted_s3.units import MIB

pytestmark = virtual_time

A, B, C = map(device, (1, 2, 3))
NAME = file("a").name
KEY = name_key(NAME)


def version(number: int, source: DeviceID, name: str = "a") -> Entry:
    """Return a version of a file, each with other data."""
    return replace(entry(file(name, number, content=number)), source=source)


def disputed(*, current: int = 5) -> Entry:
    """Return an entry that A claims, with the dissents 3 of B and 4 of C."""
    dissents = (Dissent(version(3, B), (B,)), Dissent(version(4, C), (C,)))
    return replace(version(current, A), claims=EntryClaims((A,), dissents))


def object_key(found: Entry) -> str:
    assert found.stored is not None
    return KEYS.object(found.file_info.name, found.stored.object_name)


def object_name(found: Entry) -> str:
    assert found.stored is not None
    return found.stored.object_name


class Gateway:
    """A log and its state."""

    def __init__(self, bucket: SimulatedBucket, path: Path) -> None:
        self.bucket = bucket
        self.state = FolderState(path)
        self.log = FolderLog(bucket, KEYS, self.state, device(9), clock=bucket.now)

    async def write(self, *entries: Entry) -> None:
        """Store objects, and write entries to the log."""
        for one in entries:
            for found in one.versions:
                assert found.stored is not None
                self.bucket.store.put(object_key(found), bytes(found.stored.size))
        await self.log.append(entries)

    async def renew(self, plan: Plan) -> None:
        """Renew the log."""
        await self.log.renew(plan)

    @property
    def row(self) -> Row:
        row = self.state.row(KEY)
        assert row is not None
        return row


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


async def gateway(bucket: SimulatedBucket, tmp_path: Path) -> Gateway:
    made = Gateway(bucket, tmp_path / "state.sqlite")
    await made.log.load()
    return made


@pytest.mark.parametrize("lost", [(3,), (4,), (5,), (3, 4), (3, 5), (3, 4, 5)], ids=str)
async def test_versions_whose_objects_are_missing_are_taken_back(
    bucket: SimulatedBucket, tmp_path: Path, lost: tuple[int, ...]
) -> None:
    """Those are condemned; the others stay, and the oldest dissent takes the place of a lost current version."""
    one = await gateway(bucket, tmp_path)
    await one.write(disputed(), version(1, A, "b"))
    versions = {3: version(3, B), 4: version(4, C), 5: version(5, A)}
    for number in lost:
        del bucket.store.objects[object_key(versions[number])]
    missing = MissingObjects("folder", bucket, KEYS, one.state, one.renew, SyncSettings(), MIB)
    task = asyncio.create_task(missing.run())
    missing.suspect(FailedRead(object_key(versions[lost[-1]]), 0, 100))
    await asyncio.sleep(5)
    task.cancel()
    left = [number for number in (5, 3, 4) if number not in lost]
    assert one.state.condemned(KEY) == {object_name(versions[number]) for number in lost}
    assert [found.file_info for found in one.state.versions(NAME)] == [versions[n].file_info for n in left]
    assert not missing.noticed
    assert one.state.missing_count == (5 in lost)
    if left:
        assert set(one.row.claims.claimed) == {{3: B, 4: C, 5: A}[number] for number in left}
    assert one.state.row(name_key(file("b").name)) is not None


async def test_a_name_is_never_without_what_it_keeps(bucket: SimulatedBucket, tmp_path: Path) -> None:
    """Two lost dissents of a name need two segments. A gateway may crash between them."""
    one = await gateway(bucket, tmp_path)
    await one.write(disputed())
    gone = [found for found in map(NamedObject.of, (version(3, B), version(4, C))) if found is not None]
    await one.log.renew(lambda state: without_objects(filter(None, [state.row(KEY)]), gone))
    assert one.state.position == 3
    for position in (2, 3):
        segment = decode_segment(bucket.store.body(KEYS.segment(position)), "the key")
        assert segment.renewal is not None and len(segment.renewal.removals) == 1
        assert segment.entries == (version(5, A),)


async def healed(bucket: SimulatedBucket, one: Gateway) -> Healed:
    found = await heal(bucket, KEYS, one.log, one.state, LossNotes(bucket, KEYS, A))
    assert not found.losses
    return found


async def test_a_dissent_that_the_log_has_lost_comes_back(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = await gateway(bucket, tmp_path)
    await one.write(version(2, A))
    await one.write(disputed())
    del bucket.store.objects[KEYS.segment(2)]
    found = await healed(bucket, one)
    assert (found.restored, found.missing) == (1, 0)
    assert one.row.whole_entry == disputed()


async def test_a_dissent_comes_back_beside_what_others_have_written(tmp_path: Path) -> None:
    clock = SimulatedClock()
    bucket = SimulatedBucket(SimulatedStore(clock))
    one = await gateway(bucket, tmp_path)
    await one.write(version(2, A), version(1, A, "b"))
    await one.write(disputed())
    del bucket.store.objects[KEYS.segment(2)]
    other = await gateway(bucket, tmp_path / "other")
    clock.now += 10
    await other.write(version(6, A))
    await healed(bucket, one)
    assert [found.file_info for found in one.state.versions(NAME)] == [
        found.file_info for found in (version(6, A), version(3, B), version(4, C))
    ]
    assert {device_id: key.number for device_id, key in one.row.claims.claimed.items()} == {A: 6, B: 3, C: 4}
    again = await healed(bucket, one)
    assert again.restored == 0
    other.state.close()


@pytest.mark.parametrize("lost", [(3,), (5,), (3, 4, 5)], ids=str)
async def test_what_comes_back_has_its_objects(bucket: SimulatedBucket, tmp_path: Path, lost: tuple[int, ...]) -> None:
    one = await gateway(bucket, tmp_path)
    await one.write(version(2, A))
    await one.write(disputed())
    del bucket.store.objects[KEYS.segment(2)]
    for number, source in ((3, B), (4, C), (5, A)):
        if number in lost:
            del bucket.store.objects[object_key(version(number, source))]
    found = await healed(bucket, one)
    assert (found.restored, found.missing) == (1, int(5 in lost))
    left = [number for number in (5, 3, 4) if number not in lost] or [2]
    assert [some.file_info.message.version.counters[0].value for some in one.state.versions(NAME)] == left
    assert [some.name for some in one.state.missing()] == [NAME] * (5 in lost)


async def test_healing_without_a_local_state_takes_lost_dissents_back(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = await gateway(bucket, tmp_path)
    await one.write(disputed())
    del bucket.store.objects[object_key(version(3, B))]
    other = Gateway(bucket, tmp_path / "other.sqlite")
    found = await healed(bucket, other)
    assert (found.restored, found.missing) == (0, 0)
    assert [found.file_info for found in other.state.versions(NAME)] == [
        version(5, A).file_info,
        version(4, C).file_info,
    ]
    assert other.state.condemned(KEY) == {object_name(version(3, B))}
    assert other.state.missing_count == 0
    other.state.close()
