"""A local disk that fills up at any moment: the folder waits, says so, loses nothing, and goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import directory, entry, file
from tests.index.gateways import SimulatedGateway
from tests.simulated import SimulatedBucket, fast_directory, inline_threads
from tests.simulated.full_disk import LocalDisk, local_disk
from tests.sync.fakes import DEFAULTS, has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device, check_log, check_reflected
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import LocalDiskFailed, LogWentBack, StateFolderUnusable
from untrusted_s3.index.database import open_database
from untrusted_s3.index.entry import Removal
from untrusted_s3.supervisor import Supervisor
from untrusted_s3.sync.folder import Folder

UPKEEP = DEFAULTS.upkeep
LONG = 2 * max(DEFAULTS.log.max_append_delay, UPKEEP.max_restart_delay)
INFOS = [file("a"), file("b", sizes=(2000, 2000)), directory("c")]
CHANGED = [file("a", 2), file("d")]


async def meet(folder: Folder, one: Device) -> bool:
    """Let a device connect and announce all that it has. Return whether the connection held."""
    try:
        one.share(folder)
        await one.announce(folder, 1000)
    except LocalDiskFailed:
        return False
    return True


@contextlib.asynccontextmanager
async def supervised(folder: Folder) -> AsyncIterator[Supervisor]:
    """Let a folder that is open work until the block ends, as in a gateway."""
    supervisor = Supervisor(UPKEEP.restart_delay, UPKEEP.max_restart_delay)
    for name, work in folder.tasks().items():
        supervisor.start(name, work)
    yield supervisor
    await supervisor.stop()
    folder.close()


async def story(folder: Folder, bucket: SimulatedBucket, home: Path, disk: LocalDisk, room: int) -> None:
    """Let the disk fill up while devices announce files and another gateway writes to the log and renews it."""
    one = Device(1)
    other = SimulatedGateway(SimulatedBucket(bucket.store), 5, home)
    async with supervised(folder) as supervisor:
        disk.fill(room)
        connected = True
        for infos in (INFOS, CHANGED):
            for info in infos:
                one.take(info)
            connected = await meet(folder, one) and connected
            await asyncio.sleep(60)
        with disk.another():
            await other.log.load()
            await other.log.append([entry(directory("elsewhere"))])
            await other.log.renew(lambda state: ([Removal(bytes(16))], [entry(directory("renewed"))]))
        connected = await meet(folder, one) and connected
        await asyncio.sleep(60)
        assert not disk.failed or folder.error or supervisor.failing or not connected, "it is said"
        disk.free()
        await asyncio.sleep(LONG)
        assert await meet(folder, one)
        await asyncio.sleep(LONG)
        check_reflected(folder, one)
        assert folder.in_work == 0
        assert has(folder, directory("elsewhere")) and has(folder, directory("renewed"))
    other.close()


def played(room: int) -> LocalDisk:
    with fast_directory() as home, inline_threads(), local_disk() as disk:

        async def play() -> None:
            bucket = SimulatedBucket()
            folder = new_folder(RECORD, bucket, home)
            await folder.open()
            await story(folder, bucket, home, disk, room)
            check_log(bucket.store)

        run_in_virtual_time(play())
    return disk


def test_wherever_the_disk_fills_up_nothing_is_lost() -> None:
    for room in itertools.count():
        if not played(room).failed:
            break
    assert room > 30, "each write had its turn"


async def opened(bucket: SimulatedBucket, home: Path) -> Folder:
    """Open the folder as a gateway does, which heals it first if it has to."""
    folder = new_folder(RECORD, bucket, home)
    try:
        try:
            await folder.open()
        except LogWentBack:
            await folder.heal()
            await folder.open()
    except BaseException:
        folder.close()
        raise
    return folder


def test_healing_goes_on_when_there_is_room() -> None:
    async def play(home: Path, disk: LocalDisk, room: int) -> bool:
        bucket = SimulatedBucket()
        folder = new_folder(RECORD, bucket, home)
        one = Device(1)
        await folder.open()
        async with working(folder):
            for info in INFOS:
                one.take(info)
            await meet(folder, one)
            await asyncio.sleep(60)
        for key in bucket.store.keys(KEYS.segments):
            del bucket.store.objects[key]
        disk.fill(room)
        for _ in range(2):
            with contextlib.suppress(LocalDiskFailed, StateFolderUnusable):
                (await opened(bucket, home)).close()
        disk.free()
        folder = await opened(bucket, home)
        assert all(has(folder, info) for info in INFOS)
        folder.close()
        return disk.failed > 0

    for room in itertools.count():
        with fast_directory() as home, inline_threads(), local_disk() as disk:
            if not run_in_virtual_time(play(home, disk, room)):
                break
    assert room > 5, "each write had its turn"


def test_what_sqlite_says_of_a_full_disk(tmp_path: Path) -> None:
    database = open_database(tmp_path / "x.sqlite", "CREATE TABLE t (x BLOB)", 1)
    database.execute("PRAGMA max_page_count = 5")
    with pytest.raises(LocalDiskFailed, match="disk is full"):
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    database.execute("PRAGMA max_page_count = 1000")
    database.execute("INSERT INTO t VALUES (zeroblob(100000))")
    database.close()
