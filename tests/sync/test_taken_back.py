"""What a gateway had under way when the folder's index was renewed: nothing that was taken back returns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.file_infos import directory, encrypted_name, file
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedStore
from tests.sync.fakes import DEFAULTS, has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device
from tests.virtual_time import virtual_time
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.entry import Removal
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.folder import Folder

pytestmark = virtual_time

LOG = DEFAULTS.log
A_MOMENT = 1.0
GARBAGE = file("f", version=1000, content=1)


class Held:
    """Holds calls of a gateway to the store."""

    def __init__(self) -> None:
        self.holds: Callable[[Call], bool] = lambda call: False
        self.count = 0
        self._go_on = asyncio.Event()

    async def gate(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST and self.holds(call):
            self.count += 1
            await self._go_on.wait()

    def release(self) -> None:
        self._go_on.set()


@contextlib.asynccontextmanager
async def gateway(store: SimulatedStore, home: Path, held: Held) -> AsyncIterator[Folder]:
    folder = new_folder(RECORD, SimulatedBucket(store, gate=held.gate), home)
    await folder.open()
    async with working(folder):
        yield folder


async def take_back(store: SimulatedStore, home: Path, *names: str) -> None:
    """Renew the log as a command does, with a client of its own."""
    state = FolderState(home / "command.sqlite")
    log = FolderLog(SimulatedBucket(store), KEYS, state, DeviceID(bytes(32)))
    await log.load()
    await log.renew(lambda state: ([Removal(name_key(encrypted_name(name)), "") for name in names], ()), force=True)
    state.close()


async def attack(folder: Folder, *infos: FileInfo) -> Device:
    """Let a device announce something."""
    attacker = Device(6)
    for info in infos:
        attacker.take(info)
    attacker.share(folder)
    await attacker.announce(folder, 1000)
    await asyncio.sleep(A_MOMENT)
    return attacker


@pytest.mark.parametrize("held_at", ["object", "segment"])
async def test_what_was_pulled_before_does_not_return(tmp_path: Path, held_at: str) -> None:
    store, held = SimulatedBucket().store, Held()
    async with gateway(store, tmp_path / "1", held) as folder:
        prefix = KEYS.objects if held_at == "object" else KEYS.segments
        held.holds = lambda call: call.operation == "put" and call.key.startswith(prefix)
        attacker = await attack(folder, GARBAGE)
        assert held.count == 1, "it is pulled, or on its way to the log"
        await take_back(store, tmp_path, "f")
        folder.remove_source(attacker.device_id, attacker)
        await asyncio.sleep(2 * LOG.poll_interval)
        held.release()
        await asyncio.sleep(3 * LOG.poll_interval)
        assert not has(folder, GARBAGE)
        assert not folder.syncing

        # An honest device's version of that name is not kept out.
        honest = Device(1)
        honest.take(file("f", version=2))
        honest.share(folder)
        await honest.announce(folder, 1000)
        await asyncio.sleep(A_MOMENT)
        assert has(folder, file("f", version=2))


async def test_what_is_pending_does_not_return(tmp_path: Path) -> None:
    """There are more files than are pulled at once, and what has no data waits for the log."""
    store, held = SimulatedBucket().store, Held()
    infos = [file(number, version=1000, content=number) for number in range(100)] + [directory("d", version=1000)]
    async with gateway(store, tmp_path / "1", held) as folder:
        held.holds = lambda call: call.operation == "put"
        attacker = await attack(folder, *infos)
        await take_back(store, tmp_path)
        folder.remove_source(attacker.device_id, attacker)
        await asyncio.sleep(2 * LOG.poll_interval)
        held.release()
        await asyncio.sleep(3 * LOG.poll_interval)
        assert [info for info in infos if has(folder, info)] == []
        assert not folder.syncing and folder.pending_totals == (0, 0)


async def test_a_device_that_stays_gets_its_files_in_after_a_renewal(tmp_path: Path) -> None:
    store, held = SimulatedBucket().store, Held()
    async with gateway(store, tmp_path / "1", held) as folder:
        held.holds = lambda call: call.operation == "put" and call.key.startswith(KEYS.objects)
        one = await attack(folder, file("f"))
        await take_back(store, tmp_path, "f")
        await asyncio.sleep(2 * LOG.poll_interval)
        one.share(folder)
        await one.announce(folder, 1000)
        held.release()
        await asyncio.sleep(3 * LOG.poll_interval)
        assert has(folder, file("f"))
