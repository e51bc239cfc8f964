"""When a folder's log is looked at, and how much of it is checked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from tests.virtual_time import settled, virtual_time
from untrusted_s3.settings import LogSettings
from untrusted_s3.sync.looks import Check, Looks

pytestmark = virtual_time
LOG = LogSettings()


class Folder:
    """Notes when its log is looked at, and what is checked then."""

    def __init__(self) -> None:
        self.attended = self.is_new = self.fails = False
        self.looks = Looks(LOG, lambda: self.attended, lambda: self.is_new)
        self.times: list[float] = []
        self.checks: list[tuple[float, Check]] = []

    async def work(self) -> None:
        self.looks.begin()
        while True:
            await self.looks.until_due()
            now = asyncio.get_running_loop().time()
            self.times.append(now)
            if self.fails:
                self.looks.failed()
                continue
            check = self.looks.due_check()
            if check is not None:
                self.checks.append((now, check))
                self.is_new = self.is_new and check is Check.LAST

    def come(self) -> None:
        """Let a device come."""
        self.attended = True
        self.looks.attend()


@pytest.fixture
async def folder() -> AsyncIterator[Folder]:
    folder = Folder()
    task = asyncio.create_task(folder.work())
    yield folder
    task.cancel()
    await asyncio.wait([task])


def pauses(times: list[float]) -> set[int]:
    return {round(after - before) for before, after in itertools.pairwise(times)}


async def test_often_while_a_device_is_there_and_seldom_otherwise(folder: Folder) -> None:
    folder.come()
    await asyncio.sleep(3600)
    assert pauses(folder.times) == {LOG.poll_interval}
    folder.attended = False
    await asyncio.sleep(LOG.idle_after + LOG.poll_interval)
    folder.times.clear()
    await asyncio.sleep(3600)
    assert pauses(folder.times) == {LOG.idle_poll_interval}


async def test_a_device_that_comes_does_not_wait_for_a_look(folder: Folder) -> None:
    await asyncio.sleep(10_000)
    folder.times.clear()
    await asyncio.sleep(100)
    folder.come()
    await settled()
    assert folder.times[-1] == pytest.approx(asyncio.get_running_loop().time(), abs=0.001)


async def test_devices_that_come_and_go_cause_no_more_looks_than_one_that_stays(folder: Folder) -> None:
    for _ in range(1000):
        folder.come()
        await asyncio.sleep(0.5)
        folder.attended = False
        await asyncio.sleep(0.5)
    assert len(folder.times) <= 1000 / LOG.poll_interval + 1


async def test_a_look_that_failed_is_repeated_soon(folder: Folder) -> None:
    await asyncio.sleep(3600)
    folder.fails = True
    await asyncio.sleep(LOG.idle_poll_interval)
    folder.times.clear()
    await asyncio.sleep(3600)
    assert pauses(folder.times) == {LOG.poll_interval}


async def test_checks_while_a_device_is_there(folder: Folder) -> None:
    """The last segment is read again every minute; what follows it is listed where it is new, and now and then."""
    folder.come()
    await asyncio.sleep(2000)
    assert pauses([time for time, _ in folder.checks]) == {LOG.check_interval}
    assert folder.checks[0][1] is Check.WHOLE
    listed = [time for time, check in folder.checks if check is Check.NEW]
    assert pauses(listed) == {LOG.idle_check_interval}
    folder.is_new = True
    folder.checks.clear()
    await asyncio.sleep(LOG.check_interval)
    assert [check for _, check in folder.checks] == [Check.NEW]


async def test_checks_while_nobody_is_there(folder: Folder) -> None:
    await asyncio.sleep(10_000)
    latest = LOG.whole_check_interval + LOG.idle_poll_interval
    assert all(LOG.whole_check_interval <= pause <= latest for pause in pauses([time for time, _ in folder.checks]))
    assert {check for _, check in folder.checks} == {Check.WHOLE}
    folder.checks.clear()
    await asyncio.sleep(LOG.idle_poll_interval + 1)
    folder.come()
    await settled()
    assert [check for _, check in folder.checks] in ([Check.NEW], [Check.WHOLE]), "at once"
