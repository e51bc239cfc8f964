"""The process dies at every single call to the store, before the store acts or after it. When it is started again, with
its state or without, the result is the same as without the crash."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.file_infos import SMALLEST_BLOCK, deleted, directory, file
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.sync.fakes import new_folder, run, sync_memory
from tests.sync.scripted_device import RECORD, Device, check_log, check_reflected
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.format import PartGrid

POLL_INTERVAL = 5.0
GRID = PartGrid(single_put_size=8 * SMALLEST_BLOCK, min_part_size=8192)
SETTINGS = Settings(
    log=LogSettings(
        poll_interval=POLL_INTERVAL,
        cursor_interval=-1.0,  # at every look at the log
        checkpoint_cost=2 * LogSettings().segment_cost,
        checkpoint_share=0.0,
    )
)
LARGE = [SMALLEST_BLOCK] * 40
# What the device does, one round after the other: small files and large ones come, change as a whole, in part, in their
# metadata or their kind, and go.
ROUNDS: list[list[FileInfo]] = [
    [file("small", 1), file("large", 2, sizes=LARGE), directory("directory", 3)],
    [file("small", 4, content=1), file("large", 5, sizes=[*LARGE, SMALLEST_BLOCK]), file("short lived", 6)],
    [file("large", 7, sizes=[*LARGE, SMALLEST_BLOCK]), deleted("short lived", 8), file("directory", 9)],
]


class Process:
    """A folder in a process that dies in a phase of its call number `dies_at` (from 1; 0 for never).

    What is on its disk at that moment is kept.
    """

    def __init__(
        self,
        store: SimulatedStore,
        one: Device,
        home: Path,
        dies_at: int = 0,
        phase: Phase | None = None,
    ) -> None:
        self.calls = 0
        self._one = one
        self._home = home
        self._dies_at, self._phase = dies_at, phase
        self._dead = False
        self._numbers: dict[int, int] = {}
        self.bucket = SimulatedBucket(store, gate=self._gate)
        memory = sync_memory(blocks=200_000)
        self.folder = new_folder(RECORD, self.bucket, home, memory=memory, settings=SETTINGS, grid=GRID)
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self.folder.open()
        self._one.share(self.folder)
        await run(self.folder)

    async def play(self, rounds: list[list[FileInfo]]) -> int:
        """Let the device make its changes. Return how many rounds were completed."""
        for number, infos in enumerate([[], *rounds]):
            for info in infos:
                self._one.take(info)
            await settled()
            if not self._dead:
                await self._one.announce(self.folder, 1000)
            for _ in range(7):
                await asyncio.sleep(POLL_INTERVAL)
                if self._dead:
                    return number
        return len(rounds)

    async def end(self) -> None:
        """Stop everything without another call to the store or a change on the disk."""
        self._dead = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.folder.close()

    async def _gate(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST and not self._dead:
            self.calls += 1
            self._numbers[id(call)] = self.calls
        if not self._dead and phase is self._phase and self._numbers[id(call)] == self._dies_at:
            self._dead = True
            shutil.copytree(self._home, self._home.with_suffix(".dead"))
        if self._dead:
            await asyncio.Event().wait()


@virtual_time
@pytest.mark.parametrize("keep_state", [True, False])
@pytest.mark.parametrize("phase", Phase)
async def test_dying_at_every_call(phase: Phase, keep_state: bool) -> None:
    with inline_threads(), fast_directory() as home:
        undisturbed = Process(SimulatedStore(), Device(1), home / "undisturbed")
        assert await undisturbed.play(ROUNDS) == len(ROUNDS)
        totals = undisturbed.folder.totals
        await undisturbed.end()
        assert {call.operation for call in undisturbed.bucket.calls} >= {
            "get",
            "put",
            "size",
            "list",
            "upload_file",
            "create_multipart_upload",
            "upload_part",
            "upload_part_copy",
            "complete_multipart_upload",
        }
        for dies_at in range(1, undisturbed.calls + 1):
            store, one = SimulatedStore(), Device(1)
            disk = home / f"{dies_at}"
            first = Process(store, one, disk, dies_at, phase)
            done = await first.play(ROUNDS)
            await first.end()
            left = disk.with_suffix(".dead")
            assert left.exists(), f"it did not die at call {dies_at}"
            if not keep_state:
                shutil.rmtree(left)
            second = Process(store, one, left)
            await second.play(ROUNDS[done:])
            check_reflected(second.folder, one)
            assert second.folder.totals == totals
            check_log(store)
            await second.end()
