"""Quotas: what does not fit waits, what is there stays, and all that needs no room comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.sync.fakes import FakeSource, PausingSource
from tests.sync.limited import Limited, limited, looked, noted_rescans
from tests.virtual_time import settled, virtual_time
from untrusted_s3.sync.quota import LimitKind

pytestmark = virtual_time

A, B = device(1), device(2)
SIZE = 1064  # of a file


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Limited]:
    async with limited(tmp_path) as pulling:
        yield pulling


@pytest.fixture
def rescans(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return noted_rescans(monkeypatch)


def names(*plain: str | int) -> list[str]:
    return [encrypted_name(name) for name in plain]


async def test_files_wait_when_the_quota_is_reached_and_all_else_comes_in(folder: Limited) -> None:
    folder.size = 2 * SIZE
    folder.write_down(replace(entry(file("old", sizes=(SIZE,))), source=A))
    source = FakeSource()
    folder.puller.add_source(A, source)
    files = [file(number, sizes=(SIZE,), sequence=number) for number in (1, 2, 3)]
    with capture_logs() as lines:
        folder.announce(A, *files, directory("d", sequence=4), deleted("gone", sequence=5))
        await settled()
    assert folder.names == names("d", "gone", 1), "in any order, but one file only"
    assert folder.pending.totals[0] == 2
    assert not source.asked_for(2) and not source.asked_for(3), "no device sends what has to wait"
    (reached,) = folder.quota.reached
    assert str(reached) == "the quota of the folder, 2.1 KiB, is reached"
    waits = [line for line in lines if line["event"] == "files wait for room"]
    assert [(line["folder"], line["reason"]) for line in waits] == [("folder", str(reached))]


async def test_the_quota_of_before_does_not_delete_and_is_logged_once(folder: Limited) -> None:
    folder.size = 0
    folder.write_down(replace(entry(file("old", sizes=(SIZE,))), source=A))
    folder.puller.add_source(A, FakeSource())
    with capture_logs() as lines:
        folder.announce(A, file(1, sequence=1))
        for _ in range(3):
            await looked(folder)
        folder.announce(A, file(2, sequence=2))
        for _ in range(3):
            await looked(folder)
    assert folder.state.entry(encrypted_name("old")) is not None
    assert [line["event"] for line in lines] == ["files wait for room"]


async def test_a_new_version_that_is_not_larger_comes_in(folder: Limited) -> None:
    folder.size = SIZE
    for name in ("same", "larger"):
        folder.write_down(replace(entry(file(name, sizes=(SIZE,))), source=A))
    folder.puller.add_source(A, FakeSource())
    folder.announce(
        A,
        file("same", 2, sizes=(SIZE,), content=1, sequence=1),
        file("larger", 2, sizes=(SIZE, SIZE), content=1, sequence=2),
    )
    await settled()
    assert folder.names == names("same")


async def test_changes_of_metadata_come_in(folder: Limited) -> None:
    folder.write_down(replace(entry(file("a", sizes=(SIZE,))), source=A))
    folder.size = 0
    folder.puller.add_source(B, FakeSource())
    folder.announce(B, file("a", 2, sizes=(SIZE,), sequence=1))
    await settled()
    assert folder.names == names("a") and folder.quota.reached == []


async def test_pulling_goes_on_when_the_quota_is_raised(folder: Limited) -> None:
    folder.size = SIZE
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, *(file(number, sizes=(SIZE,), sequence=number) for number in (1, 2, 3)))
    await settled()
    assert len(folder.names) == 1
    await looked(folder)
    folder.size = 2 * SIZE
    await looked(folder)
    assert len(folder.names) == 2
    folder.size = None
    with capture_logs() as lines:
        await looked(folder)
        await looked(folder)
    assert len(folder.names) == 3 and folder.quota.reached == []
    assert [line["event"] for line in lines] == ["no file waits for room any more"]


async def test_pulling_goes_on_when_files_are_deleted(folder: Limited) -> None:
    folder.size = SIZE
    folder.write_down(replace(entry(file("old", sizes=(SIZE,))), source=A))
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("new", sizes=(SIZE,), sequence=1))
    await looked(folder)
    folder.announce(A, deleted("old", 2, sequence=2))
    await settled()
    assert folder.names == names("old")
    await looked(folder)
    assert folder.names == names("old", "new")


async def test_what_waits_and_is_deleted_at_its_device_is_no_longer_told_of(folder: Limited) -> None:
    folder.size = 0
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("new", sequence=1), file("more", sequence=2))
    await looked(folder)
    assert folder.quota.reached
    folder.announce(A, deleted("new", 2, sequence=3), deleted("more", 2, sequence=4))
    await settled()
    for _ in range(2):
        await looked(folder)
    assert folder.quota.reached == []


async def test_what_is_under_way_counts(folder: Limited) -> None:
    folder.size = 3 * SIZE
    source = PausingSource()
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sizes=(SIZE,), sequence=number) for number in range(1, 6)))
    await settled()
    assert folder.quota.in_work == 3 * SIZE and len(source.asked) == 3
    source.pause_after = 100
    source.go_on.set()
    await settled()
    assert folder.quota.in_work == 0 and folder.state.totals.bytes == 3 * SIZE


async def test_a_pull_that_fails_gives_its_room_to_another(folder: Limited) -> None:
    folder.size = SIZE
    source = FakeSource()
    source.lacks = set(names(1))
    folder.puller.add_source(A, source)
    folder.announce(A, file(1, sizes=(SIZE,), sequence=1), file(2, sizes=(SIZE,), sequence=2))
    await settled()
    assert folder.quota.in_work == 0
    await looked(folder)
    assert folder.names == names(2)


async def test_the_quota_of_a_device_is_for_what_is_from_it(folder: Limited) -> None:
    folder.write_down(replace(entry(file("old", sizes=(SIZE,))), source=A))
    folder.sizes = {A: 2 * SIZE}
    for one in (A, B):
        folder.puller.add_source(one, FakeSource())
    folder.announce(A, *(file(number, sizes=(SIZE,), sequence=number) for number in (1, 2)))
    folder.announce(B, *(file(number, sizes=(SIZE,), sequence=number) for number in (3, 4, 5)))
    await settled()
    assert sorted(folder.names) == sorted(names(1, 3, 4, 5))
    (reached,) = folder.quota.reached
    assert str(reached) == f"the quota of the device {A}, 2.1 KiB, is reached"
    assert folder.quota.in_work_of(A) == folder.quota.in_work_of(B) == 0
    # What another device has changed since is from that one.
    folder.announce(B, file("old", 2, sizes=(SIZE,), content=1, sequence=6))
    await settled()
    await looked(folder)
    assert folder.state.bytes_from(A) == 2 * SIZE and folder.names[-1] in names(2)


async def test_what_waits_for_one_device_comes_from_another_with_room(folder: Limited) -> None:
    folder.sizes = {A: 0}
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file(1, sequence=1))
    await settled()
    assert folder.names == [] and folder.quota.reached
    folder.puller.add_source(B, FakeSource())
    folder.announce(B, file(1, sequence=1))
    await settled()
    assert folder.names == names(1) and folder.state.bytes_from(A) == 0
    for _ in range(2):
        await looked(folder)
    assert folder.quota.reached == []


async def test_a_change_of_metadata_by_another_device_comes_in_over_its_quota(folder: Limited) -> None:
    folder.write_down(replace(entry(file("a", sizes=(SIZE,))), source=A))
    folder.sizes = {B: 0}
    folder.puller.add_source(B, FakeSource())
    with capture_logs() as lines:
        folder.announce(B, file("a", 2, sizes=(SIZE,), sequence=1))
        await settled()
    assert folder.names == names("a") and folder.quota.reached == [] and lines == []
    assert folder.state.bytes_from(B) == SIZE


async def test_another_limit_in_place_of_the_one_before_is_said(folder: Limited) -> None:
    folder.size = 0
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file(1, sequence=1))
    await settled()
    await looked(folder)
    folder.size, folder.sizes = None, {A: 0}
    for _ in range(2):
        await looked(folder)
    assert [limit.kind for limit in folder.quota.reached] == [LimitKind.DEVICE]


async def test_the_limit_of_the_store(folder: Limited) -> None:
    folder.max_store = SIZE
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("large", sizes=(SIZE,) * 2, sequence=1), file("small", sizes=(SIZE,), sequence=2))
    await settled()
    assert folder.names == names("small")
    assert [str(limit) for limit in folder.quota.reached] == ["the limit of the store, 1.0 KiB, is reached"]


async def test_nothing_is_looked_at_again_while_nothing_has_room(folder: Limited, rescans: list[float]) -> None:
    folder.size, folder.sizes = 10 * SIZE, {A: SIZE}
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, *(file(number, sizes=(SIZE,), sequence=number) for number in range(100)))
    await settled()
    assert len(folder.names) == 1
    await looked(folder)
    before = len(rescans)
    for _ in range(100):
        await asyncio.sleep(15)
        await looked(folder)
    assert len(rescans) == before


async def test_a_small_file_that_waits_beside_large_ones_comes_in_when_it_has_room(folder: Limited) -> None:
    folder.write_down(replace(entry(file("old", sizes=(SIZE,))), source=A))
    folder.size = SIZE
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, *(file(number, sizes=(SIZE,) * number, sequence=number) for number in (3, 1, 4)))
    await looked(folder)
    await asyncio.sleep(15)
    folder.announce(A, directory("d", sequence=5), deleted("old", 2, sequence=6))
    await settled()
    await looked(folder)
    assert folder.names[-1] in names(1)


async def test_room_that_came_back_before_another_file_was_refused_is_used(folder: Limited) -> None:
    folder.size = SIZE
    source = PausingSource()
    source.lacks = set(names(1))
    folder.puller.add_source(A, source)
    folder.announce(A, file(1, sizes=(SIZE,), sequence=1), file(2, sizes=(SIZE,), sequence=2))
    await settled()
    await looked(folder)
    assert folder.quota.reached
    await asyncio.sleep(1)
    source.pause_after = 100
    source.go_on.set()
    await settled()
    folder.announce(A, file(3, sizes=(SIZE,) * 2, sequence=3))
    await settled()
    await looked(folder)
    assert folder.names == names(2)


async def test_the_more_waits_the_less_often_it_is_looked_at_unless_a_limit_is_raised(
    folder: Limited, rescans: list[float]
) -> None:
    waiting = 1000  # a second between looks at all, a hundred of the times below
    for name in range(200):
        folder.write_down(replace(entry(file(f"old {name}", sizes=(SIZE,))), source=A))
    folder.size = folder.state.totals.bytes
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, *(file(number, sizes=(5 * SIZE,), sequence=number) for number in range(waiting)))
    await settled()
    await looked(folder)
    await asyncio.sleep(10)
    await looked(folder)
    del rescans[:]
    for name in range(200):
        # There is room for one more after each five.
        folder.announce(A, deleted(f"old {name}", 2, sequence=waiting + name))
        await asyncio.sleep(0.01)
        await looked(folder)
    assert 1 <= len(rescans) <= 3
    folder.size += 50 * SIZE
    before = len(rescans)
    await looked(folder)
    assert len(rescans) == before + 1, "at once"
    await asyncio.sleep(10)
    await looked(folder)
    assert folder.size - 5 * SIZE < folder.state.totals.bytes <= folder.size
