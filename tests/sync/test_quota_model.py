"""Quotas of a folder, of devices and of the store, with random changes: no limit is exceeded by what comes in, what has
room comes in sooner or later, and then nothing is looked at again."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.file_infos import deleted, device, file
from tests.simulated import fast_directory
from tests.sync.fakes import FakeSource, name_key
from tests.sync.limited import Limited, limited, looked, noted_rescans
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.pending import Pending
from untrusted_s3.sync.quota import LimitKind

pytestmark = virtual_time

DEVICES = [device(1), device(2)]
NAMES = 10
SIZE = 1064
STEPS = 60
LARGEST = 12  # blocks that a limit allows


class Play:
    """Random changes on two devices, and of limits."""

    def __init__(self, folder: Limited, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.version = 0
        self.sources = {one: FakeSource() for one in DEVICES}

    def connect(self, one: DeviceID) -> None:
        if one not in self.folder.puller.sources.connected:
            self.folder.puller.add_source(one, self.sources[one])

    def announce(self, one: DeviceID) -> None:
        self.version += 1
        name, blocks = self.random.randrange(NAMES), self.random.randrange(5)
        sizes = (SIZE,) * blocks
        info = (
            file(name, self.version, sizes=sizes, content=self.version, sequence=self.version)
            if blocks
            else deleted(name, self.version, sequence=self.version)
        )
        self.folder.announce(one, info)

    def set_limit(self) -> None:
        size = self.random.choice([None, SIZE * self.random.randrange(LARGEST)])
        which = self.random.randrange(4)
        if which == 0:
            self.folder.size = size
        elif which == 1:
            self.folder.max_store = size
        else:
            one = DEVICES[which - 2]
            others = {other: limit for other, limit in self.folder.sizes.items() if other != one}
            self.folder.sizes = others if size is None else {**others, one: size}

    def used(self) -> dict[tuple[LimitKind, DeviceID | None], tuple[int, int]]:
        return {limit.key: (limit.used, limit.size) for one in DEVICES for limit in self.folder.limits(one)}

    async def step(self) -> None:
        chance = self.random.random()
        one = self.random.choice(DEVICES)
        if chance < 0.6:
            self.announce(one)
        elif chance < 0.7:
            self.set_limit()
        elif chance < 0.75:
            self.connect(one)
        elif chance < 0.8:
            self.folder.puller.remove_source(one, self.sources[one])
        else:
            await looked(self.folder)
        before = self.used()
        await settled()
        for key, (used, size) in self.used().items():
            assert used <= max(size, before[key][0]), key

    def has_room(self, entry: Pending) -> bool:
        size, source = self.folder.state.data_of(entry.name_hash)
        for limit in self.folder.limits(entry.device_id):
            before = size if limit.kind is not LimitKind.DEVICE or source == entry.device_id else 0
            if entry.size > before and limit.used + entry.size - before > limit.size:
                return False
        return True

    def newest_pending(self) -> list[Pending]:
        found = []
        for name in range(NAMES):
            entries = self.folder.pending.of_name(name_key(name))
            found += sorted(entries, key=lambda one: one.vector.counters[0].value)[-1:]
        return found


@pytest.mark.parametrize("seed", range(25))
async def test_no_limit_is_exceeded_and_what_has_room_comes_in(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rescans = noted_rescans(monkeypatch)
    with fast_directory() as home:
        async with limited(home) as folder:
            play = Play(folder, seed)
            for one in DEVICES:
                play.connect(one)
            for _ in range(STEPS):
                await play.step()
            for one in DEVICES:
                play.connect(one)
            for _ in range(6):
                await asyncio.sleep(15)
                await looked(folder)
            waiting = play.newest_pending()
            assert [one for one in waiting if play.has_room(one)] == []
            assert bool(folder.quota.reached) == bool(waiting)
            assert folder.quota.in_work == 0
            del rescans[:]
            for _ in range(20):
                await asyncio.sleep(15)
                await looked(folder)
            assert rescans == []
