"""Pulls under way when the gateway stops, or when their file changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import deleted, device, encrypted_name, entry, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import FakeSource, PausingSource, Pulling, running
from tests.virtual_time import settled, virtual_time
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import PartGrid

pytestmark = virtual_time

A = device(1)
PART = 2048
SETTINGS = SyncSettings(concurrent_small_files=3)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Pulling]:
    """A puller with memory for four parts at a time; a single folder leaves a third to others."""
    grid = PartGrid(single_put_size=PART, min_part_size=PART)
    pulling = Pulling(tmp_path, SimulatedBucket(), settings=SETTINGS, grid=grid, budget=6 * PART)
    async with running(pulling):
        yield pulling


# Before a stop


async def test_what_is_under_way_ends_before_a_stop_and_nothing_begins(folder: Pulling) -> None:
    source = PausingSource()
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sequence=number + 1) for number in range(10)))
    await settled()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settled()
    assert not draining.done()
    source.go_on.set()
    await settled()
    assert draining.done()
    folder.announce(A, file("new", sequence=11), deleted("gone", sequence=12))
    await settled()
    assert folder.names == [encrypted_name(number) for number in range(3)]
    assert folder.pending.totals[0] == 9


async def test_an_idle_folder_stops_at_once(folder: Pulling) -> None:
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file(0, sequence=1))
    await settled()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settled()
    assert draining.done()


async def test_a_stop_waits_so_long_and_no_longer(folder: Pulling) -> None:
    source = PausingSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file(0, sequence=1))
    await settled()
    draining = asyncio.ensure_future(folder.puller.drain())
    await asyncio.sleep(0.99 * SETTINGS.drain_timeout)
    assert not draining.done()
    await asyncio.sleep(0.02 * SETTINGS.drain_timeout)
    assert draining.done()


async def test_a_large_file_stops_after_the_parts_under_way(folder: Pulling) -> None:
    source = PausingSource(10)
    folder.puller.add_source(A, source)
    large = file("large", sizes=(PART,) * 40, sequence=1)
    folder.announce(A, large)
    await settled()
    draining = asyncio.ensure_future(folder.puller.drain())
    await settled()
    assert not draining.done()
    source.go_on.set()
    await settled()
    assert draining.done()
    begun = len(source.asked)
    assert 10 < begun <= 14
    (upload,) = folder.bucket.store.uploads.values()
    assert len(upload.parts) == begun
    assert not folder.committed and folder.puller.error is None
    # The next gateway goes on from there.
    await folder.stop()
    folder.puller = folder.new_puller()
    folder.start()
    folder.puller.add_source(A, source)
    await settled()
    assert folder.names == [large.name]
    assert sorted(source.asked_for("large")) == list(range(40))


# A file that changes while it is on its way


@pytest.mark.parametrize("change", ["content", "deletion", "another gateway", "metadata", "nothing"])
async def test_an_upload_ends_where_its_content_is_not_wanted_any_more(folder: Pulling, change: str) -> None:
    source = PausingSource(10)
    folder.puller.add_source(A, source)
    sizes = (PART,) * 40
    old = file("large", 1, sizes=sizes, sequence=1)
    folder.announce(A, old)
    await settled()
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
    await settled()
    assert not folder.bucket.store.uploads
    is_wanted = change in ("metadata", "nothing")
    assert folder.bucket.count("abort_multipart_upload") == (0 if is_wanted else 1)
    assert (len(source.asked) < 40) is not is_wanted
    assert folder.versions("large") == {"metadata": [1, 2], "nothing": [1], "another gateway": []}.get(change, [2])
    assert folder.puller.idle and folder.puller.error is None
