"""A folder's own work: what it says of its troubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import device, directory
from tests.node.loopback import until
from tests.simulated import Fault, SimulatedBucket
from untrusted_s3 import limits
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.node.folder import Folder
from untrusted_s3.node.status import folder_status
from untrusted_s3.store.records import FolderRecord

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
