"""The disk with the local state."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.waiting import until
from untrusted_s3.errors import StateFolderUnusable
from untrusted_s3.gateway.local_disk import LocalDisk


async def test_the_directory_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path / "a" / "b", 1)
    await disk.open()
    assert disk.problem is None
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/no/such", "/sys/x"])
async def test_a_directory_that_cannot_be_used_is_found_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateFolderUnusable, match="cannot be written to"):
        await LocalDisk(tmp_path / name, 1).open()


async def test_little_room_is_a_problem_but_no_end(tmp_path: Path) -> None:
    disk = LocalDisk(tmp_path, 1 << 62)
    with capture_logs() as lines:
        await disk.open()
        await disk.look()
    assert disk.problem is not None and "nearly full" in disk.problem
    assert [line["event"] for line in lines] == ["local disk not in order"], "once"


async def test_who_waits_for_room_hears_of_each_look(tmp_path: Path) -> None:
    heard: list[bool] = []
    for min_free in (1, 1 << 62):
        disk = LocalDisk(tmp_path, min_free, heard.append)
        await disk.open()
        await disk.look()
    assert heard == [True, True, False, False]


async def test_a_directory_that_vanishes_for_a_while(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    disk = LocalDisk(directory, 1)
    await disk.open()
    watching = asyncio.create_task(disk.watch(0.001))
    directory.rmdir()
    directory.write_text("a file")
    with capture_logs() as lines:
        await until(lambda: disk.problem is not None)
        directory.unlink()
        await until(lambda: disk.problem is None)
    assert [line["event"] for line in lines] == ["local disk not in order", "local disk in order again"]
    watching.cancel()
    await asyncio.wait([watching])
