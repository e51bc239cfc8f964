"""Quotas: what does not fit waits, what is there stays, and all that needs no room comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import FakeSource, PausingSource, Pulling, running
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.sync.quota import FolderQuota, Limit, LimitKind

pytestmark = virtual_time

A, B = device(1), device(2)
SIZE = 1064  # of a file


class Limited(Pulling):
    """A puller with a quota of the folder, in bytes."""

    quota: FolderQuota
    size: int | None = None

    def limits(self, device_id: DeviceID) -> list[Limit]:
        used = self.state.totals.bytes + self.quota.in_work
        return [Limit(LimitKind.FOLDER, self.size, used)] if self.size is not None else []


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Limited]:
    async with running(Limited(tmp_path, SimulatedBucket())) as pulling:
        assert isinstance(pulling, Limited)
        pulling.quota = pulling.puller.quota
        pulling.quota.limits_of = pulling.limits
        yield pulling


async def looked(folder: Limited) -> None:
    """Let the gateway look at the quotas, as it does now and then."""
    folder.puller.look_at_quota()
    await settled()


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
