"""What becomes of pulls when the gateway is to stop, and when a file changes while it is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import deleted, encrypted_name, entry, file
from tests.simulated import SimulatedBucket
from tests.sync.test_puller import A, FakeSource, Folder, running, settle, versions
from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.sync.puller import Puller

PART = 2048


class PausingSource(FakeSource):
    """A peer that waits for `go_on` once it has been asked for so many blocks."""

    def __init__(self, pause_after: int = 0) -> None:
        super().__init__()
        self.go_on.clear()
        self.pause_after = pause_after

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        if len(self.asked) < self.pause_after:
            self.go_on.set()
        elif len(self.asked) == self.pause_after:
            self.go_on.clear()
        return await super().request_block(folder_id, name, number, block)


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Folder]:
    """Has room for four parts at a time."""
    monkeypatch.setattr(limits, "SINGLE_PUT_SIZE", PART)
    monkeypatch.setattr(limits, "MIN_PART_SIZE", PART)
    async with running(Folder(tmp_path, SimulatedBucket(), 4 * PART), monkeypatch) as opened:
        yield opened


# Before a stop


async def test_what_is_under_way_ends_before_a_stop_and_nothing_begins(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONCURRENT_SMALL_FILES", 3)
    source = PausingSource()
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sequence=number + 1) for number in range(10)))
    await settle()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settle()
    assert not draining.done()
    source.go_on.set()
    await settle()
    assert draining.done()
    folder.announce(A, file("new", sequence=11), deleted("gone", sequence=12))
    await settle()
    assert folder.names == [encrypted_name(number) for number in range(3)]
    assert folder.pending.totals[0] == 9


async def test_an_idle_folder_stops_at_once(folder: Folder) -> None:
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file(0, sequence=1))
    await settle()
    draining = asyncio.ensure_future(folder.puller.drain())
    await asyncio.sleep(0)
    assert draining.done()


async def test_a_stop_waits_so_long_and_no_longer(folder: Folder) -> None:
    source = PausingSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file(0, sequence=1))
    await settle()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settle()
    (timer,) = folder.timers
    assert timer.delay == limits.DRAIN_PULLS_TIMEOUT
    assert not draining.done()
    timer.callback()
    await settle()
    assert draining.done()


async def test_a_large_file_stops_after_the_parts_under_way(folder: Folder) -> None:
    source = PausingSource(10)
    folder.puller.add_source(A, source)
    large = file("large", sizes=(PART,) * 40, sequence=1)
    folder.announce(A, large)
    await settle()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settle()
    assert not draining.done()
    source.go_on.set()
    await settle()
    assert draining.done()
    begun = len(source.asked)
    assert 10 < begun <= 14
    (upload,) = folder.bucket.store.uploads.values()
    assert len(upload.parts) == begun
    assert not folder.committed and folder.puller.error is None
    # The next gateway goes on from there.
    folder.task.cancel()
    await asyncio.wait([folder.task])
    folder.puller = Puller("folder", folder.state, folder.pending, folder.new_files(), folder._commit, folder.counters)
    folder.task = asyncio.ensure_future(folder.puller.run())
    folder.puller.add_source(A, source)
    await settle(3000)
    assert folder.names == [large.name]
    assert sorted(source.asked_for("large")) == list(range(40))


# A file that changes while it is on its way


@pytest.mark.parametrize("change", ["content", "deletion", "another gateway", "metadata", "nothing"])
async def test_an_upload_ends_where_its_content_is_not_wanted_any_more(folder: Folder, change: str) -> None:
    source = PausingSource(10)
    folder.puller.add_source(A, source)
    sizes = (PART,) * 40
    old = file("large", 1, sizes=sizes, sequence=1)
    folder.announce(A, old)
    await settle()
    match change:
        case "content":
            folder.announce(A, file("large", 2, sizes=sizes[:5], content=1, sequence=2))
        case "deletion":
            folder.announce(A, deleted("large", 2, sequence=2))
        case "another gateway":
            folder.write_down(entry(old))
        case "metadata":
            folder.announce(A, file("large", 2, sizes=sizes, sequence=2))
    source.go_on.set()
    await settle(3000)
    assert not folder.bucket.store.uploads
    is_wanted = change in ("metadata", "nothing")
    assert folder.bucket.count("abort_multipart_upload") == (0 if is_wanted else 1)
    assert (len(source.asked) < 40) is not is_wanted
    assert versions(folder, "large") == {"metadata": [1, 2], "nothing": [1], "another gateway": []}.get(change, [2])
    assert folder.puller.idle and folder.puller.error is None
