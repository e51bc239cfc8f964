"""A folder as it was: a scripted history with checkpoints and trimming."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.file_infos import device
from tests.loops import one_loop
from tests.simulated import SimulatedBucket, SimulatedClock, SimulatedStore
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, START, StoredFolder, stored_folder
from untrusted_s3.errors import BeforeHistory, DataError
from untrusted_s3.index.history import to_datetime, to_time_ms
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.trimming import trim
from untrusted_s3.settings import DEFAULT_HISTORY, LogSettings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import DAY
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.reading import BlockReader


def at(days: float) -> datetime:
    """A moment of the history."""
    return datetime.fromtimestamp(START, UTC) + timedelta(days=days)


class History:
    """A folder that changes every day at midday: on day n the file `daily` gets the content "n", the file `new n` is
    added, and that of the day before is deleted."""

    def __init__(self, stored: StoredFolder, clock: SimulatedClock) -> None:
        self.stored = stored
        self.clock = clock
        self.day = 0

    async def live(self, days: int, checkpoint: bool = False) -> None:
        for _ in range(days):
            self.clock.now = START + self.day * DAY + DAY / 2
            stored = self.stored
            changes = [
                await stored.file("daily", str(self.day).encode()),
                await stored.file(f"new {self.day}", b"new"),
            ]
            if self.day:
                changes.append(stored.deleted(f"new {self.day - 1}"))
            await stored.append(*changes, time=self.clock.now)
            if checkpoint:
                await stored.log.checkpoint()
            self.day += 1


async def history(directory: Path) -> tuple[SimulatedBucket, History]:
    clock = SimulatedClock(START)
    bucket = SimulatedBucket(SimulatedStore(clock))
    return bucket, History(await stored_folder(bucket, directory), clock)


async def names(bucket: SimulatedBucket, moment: datetime | None) -> list[str | None]:
    async with open_folder(bucket, FOLDER_ID, PASSWORD, as_of=moment) as folder:
        return [entry.path for entry in folder.entries()]


async def content(bucket: SimulatedBucket, path: str, moment: datetime | None) -> bytes:
    async with open_folder(bucket, FOLDER_ID, PASSWORD, as_of=moment) as folder, BlockReader(folder) as reader:
        entry = folder.entry(path)
        assert isinstance(entry, Entry)
        return await reader.read(entry)


@one_loop
@pytest.mark.parametrize("checkpoint", [False, True])
async def test_any_day_of_the_history(tmp_path: Path, checkpoint: bool) -> None:
    bucket, story = await history(tmp_path)
    await story.live(5, checkpoint)
    for day in range(5):
        assert await names(bucket, at(day + 0.75)) == ["daily", f"new {day}"]
        assert await content(bucket, "daily", at(day + 0.75)) == str(day).encode()
        assert await content(bucket, f"new {day}", at(day + 0.75)) == b"new"
    # To the millisecond
    assert await content(bucket, "daily", at(2.5)) == b"2"
    assert await content(bucket, "daily", at(2.5) - timedelta(milliseconds=1)) == b"1"
    assert await names(bucket, at(1000)) == await names(bucket, None) == ["daily", "new 4"]


async def test_a_segment_of_no_bytes_has_no_time(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(2)
    bucket.store.put(FolderKeys.of(FOLDER_ID).segment(3), b"")
    await story.stored.log.refresh()
    await story.stored.log.checkpoint()
    await story.live(2, checkpoint=True)
    assert story.stored.log.state.position == 5
    for day in range(4):
        assert await names(bucket, at(day + 0.75)) == ["daily", f"new {day}"]


async def test_before_the_history_the_error_says_when_it_begins(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    with pytest.raises(BeforeHistory, match="nothing was ever stored"):
        await names(bucket, at(0))
    await story.live(1)
    with pytest.raises(BeforeHistory) as error:
        await names(bucket, at(0.25))
    stated = datetime.fromisoformat(str(error.value).rpartition(" ")[2])
    assert stated == at(0.5)
    assert await names(bucket, stated) == ["daily", "new 0"]


@one_loop
async def test_a_trimmed_history_begins_at_its_base(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(40, checkpoint=True)
    await trim(bucket, story.stored.keys, DEFAULT_HISTORY, clock=lambda: 0.0)
    positions = [int(key[-20:]) for key in bucket.store.keys(story.stored.keys.segments)]
    base = min(positions) - 1
    assert 5 < base < 15
    for day in range(base - 1, 40):
        assert await content(bucket, "daily", at(day + 0.75)) == str(day).encode()
    with pytest.raises(BeforeHistory) as error:
        await names(bucket, at(base - 1.25))
    stated = datetime.fromisoformat(str(error.value).rpartition(" ")[2])
    assert stated == at(base - 0.5)
    assert await content(bucket, "daily", stated) == str(base - 1).encode()


async def test_a_damaged_checkpoint_gives_way_to_an_older_one(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(6, checkpoint=True)
    for position in (4, 5):
        key = story.stored.keys.checkpoint(position)
        bucket.store.put(key, bucket.store.body(key)[:-1] + b"?")
    assert await content(bucket, "daily", at(4.75)) == b"4"
    assert await content(bucket, "daily", at(3.75)) == b"3"


async def test_a_gap_in_the_log_is_told(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(6)
    await story.stored.log.checkpoint()
    del bucket.store.objects[story.stored.keys.segment(3)]
    # Nobody knows how early the missing one was.
    for day in (1.75, 4.75):
        with pytest.raises(DataError, match="missing"):
            await names(bucket, at(day))
    assert await names(bucket, at(5.75)) == ["daily", "new 5"]


async def test_few_objects_are_read_for_a_moment(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(30)
    await story.stored.log.checkpoint()
    await story.live(40)
    await story.stored.log.checkpoint()
    bucket.calls.clear()
    assert await names(bucket, at(30.75)) == ["daily", "new 30"]
    assert bucket.count("download_file") == 1
    assert bucket.count("get") <= 3 + 2 * LogSettings().read_ahead


async def test_all_versions_of_a_path(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(4)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder, BlockReader(folder) as reader:
        daily = await folder.versions("daily")
        assert [version.since for version in daily] == [at(day + 0.5) for day in range(4)]
        contents = [await reader.read(version.entry) for version in daily if isinstance(version.entry, Entry)]
        assert contents == [b"0", b"1", b"2", b"3"]
        came, went = await folder.versions("new 1")
        assert not came.entry.deleted and went.entry.deleted
        assert await folder.versions("never") == []


@one_loop
async def test_versions_of_a_trimmed_history_begin_with_what_was_there_before(tmp_path: Path) -> None:
    bucket, story = await history(tmp_path)
    await story.live(40, checkpoint=True)
    await trim(bucket, story.stored.keys, DEFAULT_HISTORY, clock=lambda: 0.0)
    async with open_folder(bucket, FOLDER_ID, PASSWORD, as_of=at(30)) as folder, BlockReader(folder) as reader:
        first, second, *_ = versions = await folder.versions("daily")
        assert first.since is None and second.since is not None
        assert isinstance(first.entry, Entry) and isinstance(second.entry, Entry)
        base = int(await reader.read(first.entry))
        assert second.since == at(base + 1.5)
        assert len(versions) == 40 - base


@pytest.mark.parametrize("time_ms", [0, 1, -1, 1_700_000_000_123, 2**62, -(2**62)])
def test_times_of_the_log_as_moments(time_ms: int) -> None:
    moment = to_datetime(time_ms)
    assert moment.tzinfo is not None
    if abs(time_ms) < 2**60:
        assert to_time_ms(moment) == time_ms


async def test_a_gateway_whose_clock_is_wrong_does_not_shift_the_history(tmp_path: Path) -> None:
    """Some servers take signatures from the future (SeaweedFS 4.48), so a clock that is ahead goes unnoticed."""
    store = SimulatedStore(SimulatedClock(START), enforce_lifetimes=False)
    clock = SimulatedClock(START + 7200)
    bucket = SimulatedBucket(store, clock=clock)
    stored = await stored_folder(bucket, tmp_path)
    gateway = FolderLog(bucket, FolderKeys.of(FOLDER_ID), stored.state, device(9), clock=clock)
    await gateway.append([await stored.file("a", b"a")])
    assert await names(bucket, datetime.fromtimestamp(START + 1, UTC)) == ["a"]
