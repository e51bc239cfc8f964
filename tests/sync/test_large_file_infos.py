"""Files of very many blocks: no step of the event loop handles all of them, whatever is done with the file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import untrusted_s3
from tests.file_infos import device, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import DEFAULTS, FakeSource, has, new_folder, sync_memory, working
from tests.virtual_time import virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived, RequestReceived
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.settings import LogSettings, SyncSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.threads import LargeWork

pytestmark = virtual_time

_EVENTS = asyncio.events.__file__
_PROGRAM = str(Path(untrusted_s3.__file__).parent)
A, B = device(1), device(2)
RECORD = FolderRecord("folder", "", b"token")
BLOCKS = 2000
LEAST = 16 * 1024
# Of a step: an ordinary message or a part takes some hundreds.
MOST_LINES = BLOCKS
GRID = PartGrid(single_put_size=10_000, min_part_size=100_000)


@dataclass
class Steps:
    """The lines of the program that each step of the event loop executes; what other threads do is not counted."""

    lines: int = 0
    most: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if event == "line":
            self.lines += 1
            self.most = max(self.most, self.lines)
        elif event == "call" and name == _EVENTS and frame.f_code.co_name == "_run":
            self.lines = 0  # a step begins
        return self._trace if name.startswith(_PROGRAM) else None


def large(name: str, version: int = 1, *, sequence: int, content: int = 0) -> FileInfo:
    return file(name, version, sizes=(1064,) * BLOCKS, sequence=sequence, content=content)


async def until_there(folder: Folder, info: FileInfo) -> None:
    while folder.own_index.max_sequence < info.message.sequence:
        await asyncio.sleep(0.1)


async def test_no_step_handles_all_blocks_of_a_file(tmp_path: Path) -> None:
    """Announced, pulled, announced again with and without a change, requested in turns with another one."""
    steps = Steps()
    memory = replace(sync_memory(), large_work=LargeWork(LEAST))
    settings = replace(DEFAULTS, sync=SyncSettings(index_piece_size=LEAST))
    folder = new_folder(RECORD, SimulatedBucket(), tmp_path, memory=memory, settings=settings, grid=GRID)
    await folder.open()
    infos = [
        large("a", sequence=1),
        large("b", sequence=2),
        large("a", 2, sequence=3),
        large("b", 2, sequence=4, content=1),
    ]
    async with working(folder):
        folder.start_index(A, IndexState(7, 1))
        folder.add_source(A, FakeSource())
        for info in infos:
            message = IndexReceived("folder", (info.raw,), True, info.message.sequence, 0)
            with steps.counted():
                await folder.take_index(A, 7, message)
                await until_there(folder, info)
            assert has(folder, info)
        with steps.counted():
            for number in range(4):
                info = infos[2 + number % 2]
                block = info.message.blocks[number]
                request = RequestReceived(1, "folder", info.name, block.offset, block.size, block.hash, False)
                assert await folder.requested_block(request, B) is not None
                assert await folder.requested_block(replace(request, hash=b"another"), B) is None
                assert await folder.requested_block(replace(request, size=request.size + 1), B) is None
    assert 0 < steps.most < MOST_LINES


async def test_blocks_of_large_files_are_looked_up_in_turn_and_read_once(tmp_path: Path) -> None:
    turns: list[object] = []

    class Watched(LargeWork):
        async def run(self, owner: Any, size: int, function: Any, *args: Any) -> Any:
            turns.append(owner)
            return await super().run(owner, size, function, *args)

    memory = replace(sync_memory(), large_work=Watched(LEAST))
    settings = replace(DEFAULTS, sync=SyncSettings(index_piece_size=LEAST))
    folder = new_folder(RECORD, SimulatedBucket(), tmp_path, memory=memory, settings=settings, grid=GRID)
    await folder.open()
    info = large("a", sequence=1)
    async with working(folder):
        folder.start_index(A, IndexState(7, 1))
        folder.add_source(A, FakeSource())
        await folder.take_index(A, 7, IndexReceived("folder", (info.raw,), True, 1, 0))
        await until_there(folder, info)
        turns.clear()
        for block in info.message.blocks[:50]:
            request = RequestReceived(1, "folder", info.name, block.offset, block.size, b"", False)
            assert await folder.requested_block(request, B) is not None
    assert turns == [B]


async def test_no_step_handles_all_blocks_of_a_file_in_conflict(tmp_path: Path) -> None:
    """Devices judge, and request blocks of both versions."""
    steps = Steps()
    memory = replace(sync_memory(), large_work=LargeWork(LEAST))
    log = LogSettings(large_segment=LEAST)
    settings = replace(DEFAULTS, sync=SyncSettings(index_piece_size=LEAST), log=log)
    folder = new_folder(RECORD, SimulatedBucket(), tmp_path, memory=memory, settings=settings, grid=GRID)
    await folder.open()
    versions = {A: large("a", 2, sequence=1), B: large("a", 1, sequence=1, content=1)}
    async with working(folder):
        for device_id, info in versions.items():
            folder.start_index(device_id, IndexState(7, 1))
            folder.add_source(device_id, FakeSource())
            folder.index_sent(device_id, folder.own_index.max_sequence)
            await folder.take_index(device_id, 7, IndexReceived("folder", (info.raw,), True, 1, 0))
            while folder.dissents(1).versions < (device_id == B) or not folder.own_index.max_sequence:
                folder.index_sent(device_id, folder.own_index.max_sequence)
                await asyncio.sleep(1)
        for _ in range(10):  # until both have judged
            folder.index_sent(A, folder.own_index.max_sequence)
            folder.index_sent(B, folder.own_index.max_sequence)
            await asyncio.sleep(20)
        assert folder.dissents(1).versions == 1
        with steps.counted():
            for _ in range(5):
                await asyncio.sleep(20)
                assert {raw for _, raw in folder.file_infos_after(0, 10, A)} <= {info.raw for info in versions.values()}
                for info in versions.values():
                    block = info.message.blocks[0]
                    request = RequestReceived(1, "folder", info.name, block.offset, block.size, block.hash, False)
                    assert await folder.requested_block(request, device(3)) is not None
                    assert await folder.requested_block(replace(request, hash=b""), device(3)) is not None
                    assert await folder.requested_block(replace(request, hash=b"another"), device(3)) is None
    assert 0 < steps.most < MOST_LINES
