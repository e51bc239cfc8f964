"""The room on the local disk that announced entries may take."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, file
from tests.simulated import SimulatedBucket, fast_directory
from tests.sync.fakes import DEFAULTS, FakeSource, has, new_folder, run, sync_memory, working
from tests.virtual_time import run_in_virtual_time, virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.pending import held_size
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.quota import Limit, LimitKind

A, B = device(1), device(2)


class Announcing:
    """A device that sends its index as Syncthing does: from what we know on, and again with each connection."""

    def __init__(self, device_id: DeviceID, infos: list[FileInfo], source: FakeSource) -> None:
        self.device_id, self.infos, self.source = device_id, infos, source
        self.connections = 0

    async def announce(self, folder: Folder, batch: int) -> None:
        """Send the whole index, over as many connections as it takes."""
        while True:
            self.connections += 1
            announced = IndexState(7, len(self.infos))
            await folder.prepare_index(self.device_id, announced)
            known = folder.start_index(self.device_id, announced).max_sequence
            folder.add_source(self.device_id, self.source)
            if await self._send(folder, known, batch):
                return
            assert self.device_id in folder.held_back
            await folder.index_room(self.device_id)
            folder.remove_source(self.device_id, self.source)

    async def _send(self, folder: Folder, known: int, batch: int) -> bool:
        for start in range(known, len(self.infos), batch):
            files = self.infos[start : start + batch]
            update = IndexReceived("folder", tuple(info.raw for info in files), True, files[-1].message.sequence, 0)
            if not await folder.take_index(self.device_id, 7, update):
                return False
        return True


def folder_with(memory: SyncMemory, sync: SyncSettings, directory: Path) -> Folder:
    record = FolderRecord("folder", "", b"token")
    return new_folder(record, SimulatedBucket(), directory, memory=memory, settings=replace(DEFAULTS, sync=sync))


def index_of(name: str, blocks: list[int]) -> list[FileInfo]:
    return [file(f"{name} {number}", sizes=(1064,) * count, sequence=number + 1) for number, count in enumerate(blocks)]


@virtual_time
async def test_a_device_with_more_than_its_part_waits_and_is_served_in_the_end(tmp_path: Path) -> None:
    memory = sync_memory(pending=60_000)
    folder = folder_with(memory, SyncSettings(pending_disk=60_000), tmp_path)
    await folder.open()
    running = asyncio.ensure_future(run(folder))
    one = Announcing(A, index_of("a", [1] * 1000), FakeSource())
    await asyncio.wait_for(one.announce(folder, 10), 10_000)
    assert one.connections > 1
    while not all(has(folder, info) for info in one.infos):
        await asyncio.sleep(1)
    assert memory.pending.most_used < 60_000
    assert not folder.held_back
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    folder.close()


@virtual_time
async def test_what_waits_for_a_quota_takes_room_until_the_quota_is_raised(tmp_path: Path) -> None:
    memory = sync_memory(pending=60_000)
    folder = folder_with(memory, SyncSettings(pending_disk=60_000), tmp_path)
    quota = 0
    folder.limit(lambda device_id: [Limit(LimitKind.FOLDER, quota, folder.used_bytes)])
    await folder.open()
    async with working(folder):
        one = Announcing(A, index_of("a", [1] * 200), FakeSource())
        sending = asyncio.ensure_future(one.announce(folder, 2))
        for _ in range(100):
            await asyncio.sleep(15)
            folder.look_at_quota()
        assert folder.limits_reached and list(folder.held_back) == [A] and folder.totals.files == 0
        assert one.connections == 1, "it does not come again and again"
        quota = 1 << 30
        for _ in range(10):
            await asyncio.sleep(15)
            folder.look_at_quota()
        assert sending.done() and all(has(folder, info) for info in one.infos)
        assert not folder.limits_reached and not folder.held_back


@virtual_time
async def test_an_index_whose_sequence_numbers_fall_is_asked_for_again_from_the_lowest(tmp_path: Path) -> None:
    """Syncthing's rise. Where a device's do not, what was not taken has lower numbers than what was."""
    folder = folder_with(sync_memory(pending=2000), SyncSettings(pending_disk=2000, index_piece_files=1), tmp_path)
    await folder.open()
    folder.start_index(A, IndexState(7, 20))

    def update(*sequences: int) -> IndexReceived:
        raw = tuple(file(sequence, sequence=sequence).raw for sequence in sequences)
        return IndexReceived("folder", raw, True, max(sequences), 0)

    assert not await folder.take_index(A, 7, update(*range(20, 4, -1)))
    assert folder.pending_totals[0] > 0
    assert folder.received(A) == IndexState(7, 4)
    # What follows is dropped, and may fall further.
    await folder.skip_index(A, update(30, 3))
    assert folder.received(A) == IndexState(7, 2)
    folder.close()


@virtual_time
async def test_while_the_disk_is_short_no_index_goes_on(tmp_path: Path) -> None:
    memory = sync_memory()
    folder = new_folder(FolderRecord("folder", "", b"token"), SimulatedBucket(), tmp_path, memory=memory)
    await folder.open()
    memory.pending.closed = True
    one = Announcing(A, index_of("a", [1] * 10), FakeSource())
    sending = asyncio.ensure_future(one.announce(folder, 10))
    await asyncio.sleep(3600)
    assert (memory.pending.used, one.connections) == (0, 1)
    assert list(folder.held_back) == [A]
    memory.pending.closed = False
    await asyncio.sleep(10)
    assert sending.done() and one.connections == 2
    assert folder.pending_totals[0] == 10
    folder.close()


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(1, 200), min_size=50, max_size=300),
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.integers(1, 50),
    st.booleans(),
)
def test_whatever_one_device_announces_the_disk_is_bounded_and_the_other_goes_on(
    hostile: list[int], honest: list[int], batch: int, first: bool
) -> None:
    """One device rolls dice on sizes and serves nothing."""
    capacity = 200_000

    async def play() -> None:
        memory = sync_memory(pending=capacity, in_work=10_000_000)
        with fast_directory() as directory:
            folder = folder_with(memory, SyncSettings(pending_disk=capacity), directory)
            await folder.open()
            running = asyncio.ensure_future(run(folder))
            silent = FakeSource()
            silent.go_on.clear()
            one = Announcing(A, index_of("a", hostile), silent)
            other = Announcing(B, index_of("b", honest), FakeSource())
            in_order = (one, other) if first else (other, one)
            sending = [asyncio.ensure_future(it.announce(folder, batch)) for it in in_order]
            await asyncio.sleep(3600)
            assert all(has(folder, info) for info in other.infos)
            message = max(
                sum(held_size(len(info.raw)) for info in it.infos[start : start + batch])
                for it in (one, other)
                for start in range(len(it.infos))
            )
            assert memory.pending.most_used <= capacity + 2 * (message + 100 * batch)
            for task in (*sending, running):
                task.cancel()
            await asyncio.gather(*sending, running, return_exceptions=True)
            await folder.forget_device(A)
            assert memory.pending.used == 0
            folder.close()

    run_in_virtual_time(play())
