"""What one device announces, and how it serves, holds up no other one."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import FakeSource, Pulling, running
from tests.virtual_time import run_in_virtual_time, settled, virtual_time
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import PartGrid

A, B = device(1), device(2)


@virtual_time
async def test_a_device_that_serves_nothing_holds_up_no_other_one(tmp_path: Path) -> None:
    """It announces more files of every kind than there are slots, and never answers."""
    grid = PartGrid(single_put_size=4000, min_part_size=4096)
    async with running(Pulling(tmp_path, SimulatedBucket(), grid=grid, budget=100_000)) as folder:
        silent, honest = FakeSource(), FakeSource()
        silent.go_on.clear()
        folder.puller.add_source(A, silent)
        number = itertools.count(1)
        folder.announce(A, *(file(f"large {next(number)}", sizes=(1064,) * 4, sequence=one + 1) for one in range(200)))
        folder.announce(A, *(file(f"small {next(number)}", sequence=one + 201) for one in range(200)))
        await asyncio.sleep(100)
        folder.puller.add_source(B, honest)
        mine = [file(one, sizes=(1064,) * (4 if one % 2 else 1), sequence=one + 1) for one in range(200)]
        folder.announce(B, *mine)
        await settled()
        assert sorted(folder.names) == sorted(info.name for info in mine)
        assert silent.asked


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_fair_shares_whatever_one_device_announces(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One device rolls dice on sizes, and answers no request. Those of the other one arrive, in bounded memory."""
    sizes = st.lists(st.integers(1, 9).map(lambda blocks: (1064,) * blocks), min_size=1, max_size=30)
    hostile, honest = data.draw(sizes), data.draw(sizes)
    budget = data.draw(st.integers(30_000, 200_000))

    async def play() -> None:
        directory = tmp_path_factory.mktemp("folder")
        grid = PartGrid(single_put_size=4000, min_part_size=4096)
        settings = SyncSettings(concurrent_small_files=data.draw(st.integers(1, 5)), file_infos_in_work=20_000)
        async with running(
            Pulling(directory, SimulatedBucket(), settings=settings, grid=grid, budget=budget)
        ) as folder:
            silent, serving = FakeSource(), FakeSource()
            silent.go_on.clear()
            folder.puller.add_source(A, silent)
            folder.puller.add_source(B, serving)
            folder.announce(A, *(file(f"a{one}", sizes=size, sequence=one + 1) for one, size in enumerate(hostile)))
            folder.announce(B, *(file(f"b{one}", sizes=size, sequence=one + 1) for one, size in enumerate(honest)))
            await asyncio.sleep(3600)
            assert len(folder.committed) == len(honest)
            assert folder.blocks.most_used <= budget
            assert folder.memory.in_work.most_used <= 20_000 + 2 * 3 * 3000
            assert folder.memory.large_in_work.most_used <= 20_000 + 2 * 3 * 3000

    run_in_virtual_time(play())
