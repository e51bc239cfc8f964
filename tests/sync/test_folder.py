"""A folder's own work: when entries go to the log, and which errors it reports."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import crc32c
import pytest

from tests.file_infos import device, directory
from tests.simulated import Fault, SimulatedBucket, fail_once
from tests.sync.fakes import DEFAULTS, new_folder, working
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import StateDamaged
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder

pytestmark = virtual_time

A = device(1)
RECORD = FolderRecord("folder", "", b"token")
KEYS = FolderKeys.of("folder")
LOG = DEFAULTS.log


class Source:
    async def request_block(self, *args: object) -> memoryview:
        raise AssertionError("directories have no blocks")


@contextlib.asynccontextmanager
async def opened(
    directory: Path, bucket: SimulatedBucket, settings: LogSettings = LOG, counters: Counters | None = None
) -> AsyncIterator[Folder]:
    """A folder whose tasks run until the block ends."""
    folder = new_folder(RECORD, bucket, directory, settings=Settings(log=settings), counters=counters)
    await folder.open()
    async with working(folder):
        yield folder


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
async def folder(tmp_path: Path, bucket: SimulatedBucket) -> AsyncIterator[Folder]:
    async with opened(tmp_path, bucket) as folder:
        yield folder


async def announce(folder: Folder, *numbers: int) -> None:
    """Announce directories, which need no pull."""
    raw = tuple(directory(number, sequence=number).raw for number in numbers)
    await folder.take_index(A, 7, IndexReceived("folder", raw, True, max(numbers), 0))


def share(folder: Folder) -> None:
    folder.start_index(A, IndexState(7, 1))
    folder.add_source(A, Source())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, in virtual time."""
    while not condition():
        await asyncio.sleep(0.1)
        assert asyncio.get_running_loop().time() < 10_000


async def test_an_error_is_told_while_it_lasts(folder: Folder, bucket: SimulatedBucket) -> None:
    bucket.fault = lambda call: Fault.UNREACHABLE
    await asyncio.sleep(LOG.poll_interval + 1)
    assert "cannot be followed" in str(folder.error)
    bucket.fault = lambda call: None
    await asyncio.sleep(LOG.poll_interval + 1)
    assert folder.error is None


async def test_a_log_that_can_be_read_and_not_written(folder: Folder, bucket: SimulatedBucket) -> None:
    bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" else None
    share(folder)
    await announce(folder, 1)
    await until(lambda: "cannot be written" in str(folder.error))
    reads = bucket.count("get")
    await until(lambda: bucket.count("get") > reads + 3)
    assert "cannot be written" in str(folder.error)
    bucket.fault = lambda call: None
    await until(lambda: folder.own_index.max_sequence == 1 and not folder.syncing)
    assert folder.error is None


async def test_a_log_whose_end_the_store_has_lost(folder: Folder, bucket: SimulatedBucket) -> None:
    """The store is away, comes back without the last segment, and gets it back later."""
    share(folder)
    await announce(folder, 1)
    await until(lambda: folder.own_index.max_sequence == 1)
    (key,) = bucket.store.keys(KEYS.segments)
    lost = bucket.store.objects.pop(key)
    bucket.fault = lambda call: Fault.UNREACHABLE
    await asyncio.sleep(LOG.poll_interval + 1)
    bucket.fault = lambda call: None
    await announce(folder, 2)
    await until(lambda: "cannot be written" in str(folder.error) and "lost the end of the log" in str(folder.error))
    await asyncio.sleep(10 * LOG.poll_interval)
    assert "lost the end of the log" in str(folder.error)
    assert bucket.store.keys(KEYS.segments) == []
    bucket.store.objects[key] = lost
    await until(lambda: folder.own_index.max_sequence == 2 and not folder.syncing)
    assert folder.error is None


async def test_a_lone_change_is_written_at_once(tmp_path: Path, bucket: SimulatedBucket) -> None:
    async with opened(tmp_path, bucket, LogSettings(segment_interval=1000.0)) as folder:
        share(folder)
        for number in (1, 2, 3):
            await announce(folder, number)
            await settled()
            assert folder.own_index.max_sequence == number
        assert folder.position == 3


async def test_changes_that_come_together_share_a_segment(folder: Folder) -> None:
    share(folder)
    await announce(folder, *range(1, 51))
    await until(lambda: folder.own_index.max_sequence == 50)
    assert folder.position == 1


async def test_a_busy_folder_writes_full_segments_or_few(tmp_path: Path, bucket: SimulatedBucket) -> None:
    settings = LogSettings(segment_burst=2, segment_pace=1000.0, segment_entries=3)
    async with opened(tmp_path, bucket, settings) as folder:
        share(folder)
        for number in (1, 2, 3):  # the third one once a minute
            await announce(folder, number)
            await until(lambda number=number: folder.own_index.max_sequence == number)  # type: ignore[misc]
        for number in (4, 5):
            await announce(folder, number)
            await settled()
            assert folder.in_work == number - 3
        await asyncio.sleep(50)
        assert folder.position == 3, "too soon"
        await announce(folder, 6)
        await settled()
        assert folder.own_index.max_sequence == 6
        assert folder.position == 4


async def test_an_append_that_finds_nothing_left_counts_as_no_segment(tmp_path: Path, bucket: SimulatedBucket) -> None:
    counters = Counters()
    async with opened(tmp_path, bucket, counters=counters) as folder:
        bucket.fault = fail_once("put", Fault.ANSWER_LOST)
        folder.add_source(A, Source())  # without an index state, so that no cursor is to be written
        await announce(folder, 1)
        await until(lambda: not folder.syncing and folder.own_index.max_sequence == 1)
        assert counters.registry.get_sample_value("untrusted_s3_segments_appended_total") == 0
        assert bucket.store.keys(KEYS.segments) == [KEYS.segment(1)]


async def test_damage_is_noticed(tmp_path: Path, bucket: SimulatedBucket) -> None:
    folder = new_folder(RECORD, bucket, tmp_path)
    waiting = asyncio.ensure_future(folder.until_damaged())
    await settled()
    assert (folder.damaged, waiting.done()) == (False, False)
    damage(next(tmp_path.rglob("pending.sqlite")))
    with pytest.raises(StateDamaged):
        folder.received(A)
    await asyncio.wait([waiting])
    assert isinstance(waiting.exception(), StateDamaged)
    assert folder.damaged
    folder.close()
    folder.discard()
    assert not list(tmp_path.rglob("*.sqlite"))


async def test_damage_that_only_a_checkpoint_meets_is_noticed(tmp_path: Path, bucket: SimulatedBucket) -> None:
    settings = replace(LOG, checkpoint_cost=2 * LOG.segment_cost, checkpoint_share=0.0)
    async with opened(tmp_path, bucket, settings) as folder:
        share(folder)
        damage(
            next(tmp_path.rglob("state.sqlite")), "missing", "(SELECT rootpage FROM sqlite_schema WHERE name = 'files')"
        )
        for number in range(1, 4):
            await announce(folder, number)
            await until(lambda number=number: folder.own_index.max_sequence == number)  # type: ignore[misc]
        with pytest.raises(StateDamaged):
            await folder.until_damaged()
        assert folder.damaged
        assert bucket.store.keys(KEYS.checkpoints) == []


async def test_a_checkpoint_with_an_entry_that_cannot_be_read(tmp_path: Path, bucket: SimulatedBucket) -> None:
    """Loading it again does not help: the second time, all of it is read before it is taken."""
    settings = replace(LOG, checkpoint_cost=2 * LOG.segment_cost, checkpoint_share=0.0)
    async with opened(tmp_path / "1", bucket, settings) as folder:
        share(folder)
        for number in range(1, 4):
            await announce(folder, number)
            await until(lambda number=number: folder.own_index.max_sequence == number)  # type: ignore[misc]
        await until(lambda: bool(bucket.store.keys(KEYS.checkpoints)))
    spoil(bucket, bucket.store.keys(KEYS.checkpoints)[-1], tmp_path / "spoilt", directory(2).name)
    for thorough in (False, True):
        again = new_folder(RECORD, bucket, tmp_path / f"again{thorough}")
        if thorough:
            again.distrust_checkpoints()
        await again.open()
        assert again.totals.directories == 3
        for number in (1, 2, 3):
            if number == 2 and not thorough:
                with pytest.raises(StateDamaged):
                    again.entry(directory(number).name)
            else:
                assert again.entry(directory(number).name) is not None
        assert again.damaged is not thorough
        again.close()


def spoil(bucket: SimulatedBucket, key: str, path: Path, name: str) -> None:
    """Write a checkpoint again, with an entry that no gateway writes."""
    path.write_bytes(bucket.store.body(key)[:-4])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE files SET file_info = x'ff' WHERE name_hash = ?", (name_key(name),))
    body = path.read_bytes()
    bucket.store.put(key, body + crc32c.crc32c(body).to_bytes(4, "big"))


def damage(path: Path, table: str = "received", page: str = "1000") -> None:
    """Make the schema of a database name another page of a table, by default one beyond the end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_schema SET rootpage = {page} WHERE name = ?", (table,))
        connection.execute("PRAGMA schema_version = 1000")
