"""The quotas of a store, as a gateway reads, applies and shows them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.file_infos import SMALLEST_BLOCK as SIZE
from tests.file_infos import deleted, device, directory, file
from tests.simulated import Call, Fault, SimulatedBucket
from tests.sync.fakes import has, new_folder, working
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import StateDamaged, StoreUnreachable
from untrusted_s3.gateway.quotas import QuotaKeeper
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit, LimitKind

A, B = device(1), device(2)
SETTINGS = UpkeepSettings()


def a_folder(
    folder_id: str, used: int = 0, from_devices: Mapping[DeviceID, int] | None = None, **fields: Any
) -> Folder:
    async def count_sources() -> None:
        pass

    everything = {
        "record": SimpleNamespace(folder_id=folder_id),
        "used_bytes": used,
        "limits_reached": [],
        "count_sources": count_sources,
        "bytes_from": lambda device_id: (from_devices or {}).get(device_id, 0),
        "look_at_quota": lambda: None,
        **fields,
    }
    return cast(Folder, SimpleNamespace(**everything))


def a_keeper(bucket: SimulatedBucket, *folders: Folder, max_store: int | None = None) -> QuotaKeeper:
    return QuotaKeeper(bucket, lambda: folders, SETTINGS, max_store)


async def test_the_quota_of_a_folder() -> None:
    bucket = SimulatedBucket()
    one, other = a_folder("one", 7), a_folder("other", 5)
    keeper = a_keeper(bucket, one, other)
    await keeper.load()
    assert keeper.limits(one, A) == []
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    assert keeper.limits(one, A) == [Limit(LimitKind.FOLDER, 10, 7)]
    assert keeper.limits(other, A) == []


async def test_the_quota_of_a_device_is_for_all_folders_together() -> None:
    bucket = SimulatedBucket()
    counted = []

    async def count_sources() -> None:
        counted.append(keeper.quotas.devices)

    def damaged(device_id: DeviceID) -> int:
        raise StateDamaged("it is opened again")

    one = a_folder("one", 9, {A: 3, B: 4}, count_sources=count_sources)
    other, third = a_folder("other", 5, {A: 5}), a_folder("third", bytes_from=damaged)
    keeper = a_keeper(bucket, one, other, third)
    await write_quotas(bucket, Quotas({}, {A: 10}))
    await keeper.load()
    assert counted == [{}], "before the quota counts"
    for folder in (one, other, third):
        assert keeper.limits(folder, A) == [Limit(LimitKind.DEVICE, 10, 8, A)]
        assert keeper.limits(folder, B) == []
    assert keeper.of_peer(A) == {"quota": 10, "used_bytes": 8}
    assert keeper.of_peer(B) == {"quota": None, "used_bytes": None}


async def test_the_limit_of_the_store_is_for_all_folders_together() -> None:
    bucket = SimulatedBucket()
    one = a_folder("one", 7)
    keeper = a_keeper(bucket, one, a_folder("other", 5), max_store=20)
    await write_quotas(bucket, Quotas({"one": 10}, {A: 11}))
    await keeper.load()
    assert keeper.limits(one, A) == [
        Limit(LimitKind.FOLDER, 10, 7),
        Limit(LimitKind.DEVICE, 11, 0, A),
        Limit(LimitKind.STORE, 20, 12),
    ]
    assert keeper.of_store() == {"max_store": 20, "used_bytes": 12}


@contextlib.asynccontextmanager
async def watching(keeper: QuotaKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.run())
    yield
    task.cancel()
    await asyncio.wait([task])


class Reads:
    """A bucket that notes when the quotas are read."""

    def __init__(self) -> None:
        self.bucket = SimulatedBucket(fault=self._note)
        self.times: list[float] = []
        self.fault: Fault | None = None

    def _note(self, call: Call) -> Fault | None:
        if call.operation == "get":
            self.times.append(asyncio.get_running_loop().time())
        return self.fault


@virtual_time
async def test_they_are_read_seldom_while_nobody_needs_them() -> None:
    reads = Reads()
    keeper = a_keeper(reads.bucket, a_folder("one"))
    await keeper.load()
    async with watching(keeper):
        await asyncio.sleep(3600)
    assert len(reads.times) == 6


@virtual_time
async def test_they_are_read_when_files_come_in_after_a_while() -> None:
    reads = Reads()
    one = a_folder("one")
    keeper = a_keeper(reads.bucket, one)
    await keeper.load()
    async with watching(keeper):
        await asyncio.sleep(100)
        await write_quotas(reads.bucket, Quotas({"one": 10}))
        del reads.times[:]
        for _ in range(3):
            keeper.limits(one, A)
            await asyncio.sleep(0.001)
        assert len(reads.times) == 1 and keeper.limits(one, A) == [Limit(LimitKind.FOLDER, 10, 0)]


@virtual_time
@pytest.mark.parametrize("fault", [None, Fault.UNREACHABLE])
async def test_while_files_wait_a_raised_quota_is_noticed_within_a_minute(fault: Fault | None) -> None:
    reads = Reads()

    def look() -> None:
        keeper.limits(one, A)

    one = a_folder("one", look_at_quota=look)
    keeper = a_keeper(reads.bucket, one)
    await keeper.load()
    reads.fault = fault
    async with watching(keeper):
        await asyncio.sleep(1800)
    pauses = [after - before for before, after in zip(reads.times, reads.times[1:], strict=False)]
    assert pauses and all(45 <= pause <= 60 for pause in pauses), "no more, no less, also while the store is away"


class Gateway:
    """Real folders, and the quotas of their store."""

    def __init__(self, bucket: SimulatedBucket, home: Path, *folder_ids: str, max_store: int | None = None) -> None:
        self.folders = [
            new_folder(FolderRecord(folder_id, "", b"token"), bucket, home / folder_id) for folder_id in folder_ids
        ]
        self.keeper = a_keeper(bucket, *self.folders, max_store=max_store)
        for folder in self.folders:
            folder.limit(partial(self.keeper.limits, folder), self.keeper.are_known)
            folder.on_used = partial(self.keeper.used.changed, folder)
            folder.counts_sources = lambda: bool(self.keeper.quotas.devices)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.keeper.load()
        async with contextlib.AsyncExitStack() as stack:
            for folder in self.folders:
                await folder.open()
                await stack.enter_async_context(working(folder))
            async with watching(self.keeper):
                yield

    @property
    def files(self) -> int:
        return sum(folder.totals.files for folder in self.folders)


class AnyBlock:
    """A device that has every block."""

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        return memoryview(bytes(block.size))


async def announce(folder: Folder, device_id: DeviceID, *infos: FileInfo) -> None:
    last = infos[-1].message.sequence
    folder.start_index(device_id, IndexState(7, last))
    folder.add_source(device_id, AnyBlock())
    update = IndexReceived(folder.record.folder_id, tuple(info.raw for info in infos), True, last, 0)
    assert await folder.take_index(device_id, 7, update)


# How long nothing came in when a quota is set, and when the next file comes after that.
@virtual_time
@pytest.mark.parametrize("quiet", [6.0, 50.0, 599.0, 5000.0])
@pytest.mark.parametrize("later", [0.0, 0.2, 6.0])
async def test_the_next_file_is_judged_by_a_quota_that_is_set_while_nothing_comes_in(
    tmp_path: Path, quiet: float, later: float
) -> None:
    bucket = SimulatedBucket()
    gateway = Gateway(bucket, tmp_path, "one", "other")
    one, other = gateway.folders
    async with gateway.running():
        await announce(one, A, file(1, sequence=1))
        await asyncio.sleep(quiet)
        assert gateway.files == 1
        await write_quotas(bucket, Quotas({}, {A: SIZE}))
        await asyncio.sleep(later)
        await announce(other, A, file(2, sequence=1), directory("d", sequence=2))
        await asyncio.sleep(60)
        assert gateway.files == 1 and other.limits_reached
        assert has(other, directory("d"))


@virtual_time
async def test_a_store_that_does_not_give_quotas_keeps_files_for_seconds_only(tmp_path: Path) -> None:
    away = hangs = False

    def fault(call: Call) -> Fault | None:
        return Fault.UNREACHABLE if away and call.key == layout.QUOTAS else None

    class Hanging(SimulatedBucket):
        async def get(self, key: str, *args: Any, **options: Any) -> bytes:
            if away and key == layout.QUOTAS and hangs:
                await asyncio.Event().wait()
            return await super().get(key, *args, **options)

    bucket = Hanging(fault=fault)
    gateway = Gateway(bucket, tmp_path, "one")
    (one,) = gateway.folders
    async with gateway.running():
        away = True
        for number in range(1, 4):
            await announce(one, A, file(number, sequence=number))
            await asyncio.sleep(SETTINGS.quota_timeout + 5)
            assert gateway.files == number
            hangs = not hangs
            await asyncio.sleep(100)


@virtual_time
async def test_one_read_for_many_files(tmp_path: Path) -> None:
    reads = Reads()
    gateway = Gateway(reads.bucket, tmp_path, "one")
    (one,) = gateway.folders
    async with gateway.running():
        await asyncio.sleep(300)
        before = sum(call.key == layout.QUOTAS for call in reads.bucket.calls)
        for number in range(1, 20):
            await announce(one, A, file(number, sequence=number))
            await asyncio.sleep(2)
        assert gateway.files == 19
        assert sum(call.key == layout.QUOTAS for call in reads.bucket.calls) == before + 1


@virtual_time
async def test_a_device_fills_its_quota_in_two_folders_and_it_heals_by_itself(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    await write_quotas(bucket, Quotas({}, {A: 3 * SIZE}))
    gateway = Gateway(bucket, tmp_path, "one", "other")
    one, other = gateway.folders
    async with gateway.running():
        await announce(one, A, *(file(name, sequence=name) for name in (1, 2)))
        await asyncio.sleep(5)
        await announce(other, A, *(file(name, sequence=name) for name in (1, 2, 3)))
        await announce(other, B, file("b", sequence=1))
        await asyncio.sleep(60)
        assert gateway.files == 4 and gateway.keeper.used.of(A) == 3 * SIZE
        assert gateway.keeper.used.of(B) == SIZE
        assert list(gateway.keeper.problems()) == ["folder other: files wait for room"]
        await announce(one, A, deleted(1, 2, sequence=3))
        await asyncio.sleep(30)
        assert (one.totals.files, other.totals.files) == (1, 3), "room in one folder is for all"
        await write_quotas(bucket, Quotas({}, {A: 100 * SIZE}))
        await asyncio.sleep(61)
        assert gateway.files == 5 and gateway.keeper.problems() == {}
    again = Gateway(bucket, tmp_path / "again", "one", "other", max_store=5 * SIZE)
    async with again.running():
        assert again.keeper.used.of(A) == 4 * SIZE, "the log says where files are from"
        await announce(again.folders[0], B, file("more", sequence=2))
        await asyncio.sleep(60)
        assert again.files == 5
        assert "the limit of the store" in again.keeper.problems()["folder one: files wait for room"]


async def test_a_damaged_record_leaves_the_quotas_as_they_were_and_is_said() -> None:
    bucket = SimulatedBucket()
    keeper = a_keeper(bucket)
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    bucket.store.put(layout.QUOTAS, json.dumps({"folders": [{"id": "one", "bytes": -1}]}).encode())
    with capture_logs() as lines:
        await keeper.load()
        await keeper.load()
    assert keeper.quotas == Quotas({"one": 10})
    assert [line["event"] for line in lines] == ["record of quotas not readable"]
    assert list(keeper.problems()) == ["quotas.json: not readable"]
    await write_quotas(bucket, Quotas())
    await keeper.load()
    assert keeper.quotas == Quotas() and keeper.problems() == {}


async def test_a_store_that_does_not_answer_leaves_them_too() -> None:
    bucket = SimulatedBucket()
    keeper = a_keeper(bucket)
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await keeper.load()
    assert keeper.quotas == Quotas({"one": 10})


def test_what_waits_is_a_problem() -> None:
    reached = [Limit(LimitKind.FOLDER, 2**30, 2**30)]
    keeper = a_keeper(SimulatedBucket(), a_folder("one", limits_reached=reached), a_folder("other"))
    assert keeper.problems() == {"folder one: files wait for room": "the quota of the folder, 1.0 GiB, is reached"}
