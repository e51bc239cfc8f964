"""A folder's own work: what it says of its troubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.connections.loopback import until
from tests.file_infos import device, directory
from tests.simulated import Fault, SimulatedBucket, fail_once
from untrusted_s3 import limits
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import StateDamaged
from untrusted_s3.gateway.status import folder_status
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder

A = device(1)


class Source:
    async def request_block(self, *args: object) -> memoryview:
        raise AssertionError("directories have no blocks")


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Folder, SimulatedBucket]]:
    for name in ("LOG_POLL_INTERVAL", "SEGMENT_INTERVAL", "MAX_APPEND_DELAY"):
        monkeypatch.setattr(limits, name, 0.001)
    bucket = SimulatedBucket()
    record = FolderRecord("folder", "", b"token")
    opened = Folder(record, bucket, device(9), tmp_path, ByteBudget(1_000_000), asyncio.Semaphore(16), Counters())
    await opened.open()
    task = asyncio.ensure_future(opened.run())
    yield opened, bucket
    task.cancel()
    await asyncio.wait([task])
    opened.close()


def error_of(folder: Folder) -> str:
    return str(folder_status(folder)["error"] or "")


async def test_an_error_is_told_while_it_lasts(folder: tuple[Folder, SimulatedBucket]) -> None:
    opened, bucket = folder
    bucket.fault = lambda call: Fault.UNREACHABLE
    await until(lambda: "cannot be followed" in error_of(opened))
    bucket.fault = lambda call: None
    await until(lambda: not error_of(opened))


async def test_a_log_that_can_be_read_and_not_written(folder: tuple[Folder, SimulatedBucket]) -> None:
    opened, bucket = folder
    bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" else None
    opened.peer_index(A, IndexState(7, 1))
    opened.puller.add_source(A, Source())
    opened.pending.add(A, IndexState(7, 1), [directory("d", sequence=1)], [])
    opened.puller.wake()
    await until(lambda: "cannot be written" in error_of(opened))
    reads = bucket.count("get")
    await until(lambda: bucket.count("get") > reads + 3)
    assert "cannot be written" in error_of(opened)
    bucket.fault = lambda call: None
    await until(lambda: opened.state.sequence == 1 and not opened.syncing)
    assert error_of(opened) == ""


def announce(folder: Folder, *numbers: int) -> None:
    """A peer announces directories, which need no pull."""
    infos = [directory(number, sequence=number) for number in numbers]
    folder.pending.add(A, IndexState(7, max(numbers)), infos, [])
    folder.puller.wake()


@pytest.fixture
def shared(folder: tuple[Folder, SimulatedBucket]) -> Folder:
    opened, _ = folder
    opened.peer_index(A, IndexState(7, 1))
    opened.puller.add_source(A, Source())
    return opened


async def test_a_lone_change_is_written_at_once(shared: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_INTERVAL", 1000.0)
    for number in (1, 2, 3):
        announce(shared, number)
        await until(lambda number=number: shared.state.sequence == number)  # type: ignore[misc]
    assert shared.state.position == 3


async def test_changes_that_come_together_share_a_segment(shared: Folder) -> None:
    announce(shared, *range(1, 51))
    await until(lambda: shared.state.sequence == 50)
    assert shared.state.position == 1


async def test_a_busy_folder_writes_full_segments_or_few(shared: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEGMENT_BURST", 2)
    monkeypatch.setattr(limits, "SEGMENT_PACE", 1000.0)
    monkeypatch.setattr(limits, "SEGMENT_ENTRIES", 3)
    for number in (1, 2):
        announce(shared, number)
        await until(lambda number=number: shared.state.sequence == number)  # type: ignore[misc]
    for number in (3, 4):
        announce(shared, number)
        await until(lambda number=number: shared.puller.in_work == number - 2)  # type: ignore[misc]
    await asyncio.sleep(0.01)
    assert shared.state.position == 2, "too soon"
    announce(shared, 5)
    await until(lambda: shared.state.sequence == 5)
    assert shared.state.position == 3


async def test_an_append_that_finds_nothing_left_counts_as_no_segment(folder: tuple[Folder, SimulatedBucket]) -> None:
    opened, bucket = folder
    bucket.fault = fail_once("put", Fault.ANSWER_LOST)
    opened.puller.add_source(A, Source())
    announce(opened, 1)
    await until(lambda: not opened.syncing and opened.state.sequence == 1)
    assert opened._counters.registry.get_sample_value("untrusted_s3_segments_appended_total") == 0
    assert bucket.store.keys(opened.keys.segments) == [opened.keys.segment(1)]


async def test_damage_ends_the_run(folder: tuple[Folder, SimulatedBucket], tmp_path: Path) -> None:
    opened, bucket = folder
    other = Folder(
        opened.record, bucket, device(8), tmp_path / "other", ByteBudget(1_000_000), asyncio.Semaphore(16), Counters()
    )
    run = asyncio.ensure_future(other.run())
    with pytest.raises(StateDamaged):
        other.pending._connection.execute("INSERT INTO received VALUES (NULL, NULL, NULL)")
    await asyncio.wait([run])
    assert isinstance(run.exception(), ExceptionGroup)
    assert other.damaged
    other.close()
    other.discard()
    assert not list((tmp_path / "other").rglob("*.sqlite"))
