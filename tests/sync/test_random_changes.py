"""Random changes at one or two scripted devices, failures of the store, lost connections and crashes. In the end the
folder has what the devices have, and every object that the log names exists."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from tests.file_infos import SMALLEST_BLOCK, deleted, directory, encrypted_name, file
from tests.simulated import Call, Fault, Phase, SimulatedBucket, SimulatedStore, inline_threads
from tests.sync.fakes import new_folder, run, sync_memory
from tests.sync.scripted_device import RECORD, Device, check_log, check_reflected
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.settings import LogSettings, Settings, SyncSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.sync.folder import Folder

NAMES = 30
BUSY_NAMES = 3
SETTINGS = Settings(log=LogSettings(segment_entries=4), sync=SyncSettings(concurrent_small_files=3, entries_in_work=6))
GRID = PartGrid(single_put_size=8 * SMALLEST_BLOCK, min_part_size=8192)
LONGEST_CALL = 0.2


class World:
    """One device or two, a gateway's folder, and the store. Events happen in random order."""

    def __init__(self, seed: int, home: Path) -> None:
        self.random = random.Random(seed)
        self.devices = [Device(1), Device(2)][: 1 + seed % 2]  # what one has lost, another might make good
        self.store = SimulatedStore()
        self.home = home
        self.version = 0
        self.trouble = 0.0
        self.connected: set[int] = set()
        self.folder: Folder
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        bucket = SimulatedBucket(self.store, gate=self._gate, fault=self._fault)
        memory = sync_memory(blocks=200_000)
        self.folder = new_folder(RECORD, bucket, self.home, memory=memory, settings=SETTINGS, grid=GRID)
        trouble, self.trouble = self.trouble, 0.0
        await self.folder.open()
        self.trouble = trouble
        self._task = asyncio.ensure_future(run(self.folder))

    async def crash(self, keep_state: bool) -> None:
        for number in list(self.connected):
            self.disconnect(number)
        self._task.cancel()
        await asyncio.wait([self._task])
        self.folder.close()
        if not keep_state:
            shutil.rmtree(self.home)

    async def _gate(self, call: Call, phase: Phase) -> None:
        await asyncio.sleep(self.random.uniform(0, LONGEST_CALL / 2))

    def _fault(self, call: Call) -> Fault | None:
        if self.random.random() >= self.trouble:
            return None
        return self.random.choice([Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.EMPTIED])

    def connect(self, number: int) -> None:
        if number not in self.connected:
            self.devices[number].share(self.folder)
            self.connected.add(number)

    def disconnect(self, number: int) -> None:
        if number in self.connected:
            self.folder.remove_source(self.devices[number].device_id, self.devices[number])
            self.connected.remove(number)

    async def deliver(self, number: int, count: int) -> None:
        if number in self.connected:
            await self.devices[number].announce(self.folder, count)

    def change(self, number: int) -> None:
        name = self.random.randrange(self.random.choice((BUSY_NAMES, NAMES)))
        self._exchange(encrypted_name(name))  # so that no change is made to an older version
        self.version += 1
        kind = self.random.randrange(10)
        before = self.devices[number].files.get(encrypted_name(name))
        if kind == 0:
            info = directory(name, self.version)
        elif kind <= 2:
            info = deleted(name, self.version)
        elif kind == 3 and before is not None and before.has_data:  # metadata alone
            message = pb.FileInfo.FromString(before.raw)
            message.version.counters[0].value = self.version
            info = parse_file_info(message.SerializeToString())
        else:
            sizes = [SMALLEST_BLOCK] * self.random.choice((1, 2, 3, 14, 40))
            info = file(name, self.version, sizes=sizes, content=self.random.randrange(3))
        self.devices[number].take(info)

    def _exchange(self, name: str) -> None:
        infos = [one.files[name] for one in self.devices if name in one.files]
        if infos:
            newest = max(infos, key=lambda info: info.message.version.counters[0].value)
            for one in self.devices:
                if name not in one.files or one.files[name].message.version != newest.message.version:
                    one.take(newest)

    def exchange_all(self) -> None:
        for number in range(NAMES):
            self._exchange(encrypted_name(number))

    async def something_happens(self) -> None:
        number = self.random.randrange(len(self.devices))
        match self.random.randrange(24):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7:
                self.change(number)
            case 8 | 9 | 10 | 11 | 12:
                await self.deliver(number, self.random.randrange(1, 20))
            case 13 | 14 | 15:
                await asyncio.sleep(self.random.choice((1, 6, 20)))
            case 16 | 17:
                self.connect(number)
            case 18:
                self.disconnect(number)
            case 22:
                self.devices[number].answers.clear()
            case 23:
                self.devices[number].answers.set()
            case 19:
                self._exchange(encrypted_name(self.random.randrange(NAMES)))
            case 20:
                self.trouble = self.random.choice((0.0, 0.0, 0.1, 0.5))
            case 21 if self.random.randrange(2) == 0:
                await self.crash(keep_state=self.random.random() < 0.5)
                await self.start()
        await asyncio.sleep(self.random.choice((0, 0.01, 0.1, 0.5, 2)))

    async def come_to_rest(self) -> None:
        self.trouble = 0.0
        self.exchange_all()
        for number in range(len(self.devices)):
            self.devices[number].answers.set()
            self.connect(number)
            await self.deliver(number, 1000)
        await asyncio.sleep(2000)


@virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_random_changes(seed: int, tmp_path: Path) -> None:
    world = World(seed, tmp_path / "state")
    with inline_threads():
        await world.start()
        for _ in range(300):
            await world.something_happens()
        if seed % 4 < 2:
            await world.crash(keep_state=False)
            await world.start()
        await world.come_to_rest()

        for one in world.devices:
            check_reflected(world.folder, one)
        check_log(world.store)

        # Without any state the log alone tells how much of each device's index is there.
        await world.folder.flush()
        await world.crash(keep_state=False)
        await world.start()
        for one in world.devices:
            assert one.share(world.folder) == IndexState(one.index_id, one.sequence)
        await world.crash(keep_state=False)
