"""The process dies at every single write to the store while devices settle a conflict. What they claim is not lost."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.file_infos import device
from tests.simulated import Call, Phase, SimulatedStore, fast_directory, inline_threads
from tests.sync.judging_device import Gateway, Judge, version, virtual_store
from tests.virtual_time import virtual_time

pytestmark = virtual_time

A, B = device(1), device(2)
LONG = 300.0


class Dying:
    """A gateway that dies in a phase of its write number `dies_at` (from 1; 0 for never).

    What is on its disk at that moment is kept.
    """

    def __init__(self, store: SimulatedStore, home: Path, dies_at: int = 0, phase: Phase | None = None) -> None:
        self.writes = 0
        self.dead = False
        self.home = home
        self._dies_at, self._phase = dies_at, phase
        self._numbers: dict[int, int] = {}
        self.gateway = Gateway(store, home, gate=self._gate)

    async def _gate(self, call: Call, phase: Phase) -> None:
        if call.operation == "put" and phase is Phase.REQUEST and not self.dead:
            self.writes += 1
            self._numbers[id(call)] = self.writes
        if not self.dead and phase is self._phase and self._numbers.get(id(call)) == self._dies_at:
            self.dead = True
            shutil.copytree(self.home, self.home.with_suffix(".dead"))
        if self.dead:
            await asyncio.Event().wait()

    async def wait(self, seconds: float) -> None:
        """Let time pass until it dies."""
        for _ in range(round(seconds / 5)):
            await asyncio.sleep(5)
            if self.dead:
                return


async def play(dying: Dying, a: Judge, b: Judge) -> None:
    """Let B come with a version that is in conflict with A's and a copy of another file, and A after it."""
    await dying.gateway.start()
    await a.connect(dying.gateway.folder)
    await dying.wait(10)
    if not dying.dead:
        await b.connect(dying.gateway.folder)
        await dying.wait(LONG)
    for judge in (a, b):
        await judge.disconnect()
    await dying.gateway.crash()


@pytest.mark.parametrize("keep_state", [True, False])
@pytest.mark.parametrize("phase", Phase)
async def test_dying_at_every_write(phase: Phase, keep_state: bool) -> None:
    with inline_threads(), fast_directory() as home:
        dies_at = 0
        while True:
            store, a, b = virtual_store(), Judge(1), Judge(2)
            for name in ("conflict", "behind", "equal"):
                a.edit(version(name, 20, 1 if name == "conflict" else 2))
            b.edit(version("conflict", 10, 2))
            b.edit(version("behind", 10, 1))
            b.edit(version("equal", 20, 2))
            dies_at += 1
            dying = Dying(store, home / f"{dies_at}", dies_at, phase)
            await play(dying, a, b)
            if not dying.dead:
                break
            left = dying.home.with_suffix(".dead")
            if not keep_state:
                shutil.rmtree(left)
            gateway = Gateway(store, left)
            await gateway.start()
            await a.connect(gateway.folder)
            await b.connect(gateway.folder)
            await asyncio.sleep(LONG)
            assert gateway.claimed("conflict") == {A: 10, B: 10}, dies_at
            assert gateway.claimed("behind") == gateway.claimed("equal") == {A: 20, B: 20}, dies_at
            assert a.sees_complete() and b.sees_complete()
            for judge in (a, b):
                await judge.disconnect()
            await gateway.close()
        assert dies_at > 8
