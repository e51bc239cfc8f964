"""What the ordinary case costs: requests, log entries and bytes of a story in which nobody edits at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import device, entry, file
from tests.simulated import SimulatedBucket, inline_threads
from tests.sync.fakes import new_folder, run
from tests.sync.judging_device import Gateway, Judge, logged, segments, version, virtual_store
from tests.sync.scripted_device import KEYS, RECORD
from tests.virtual_time import virtual_time
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.index.database import Database
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.segment import encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.format import PartGrid

pytestmark = virtual_time

FILES, CHANGED, GONE, LATER = 1000, 100, 50, 10
# The bytes that a segment has for a confirmation: device ID with its tag and length, tags and lengths of the message
# and of its ranges; and for each range two numbers of at most three bytes.
CONFIRMATION, RANGE = 40, 6
# Segments with cursors or confirmations alone: one a pause.
ALONE = 4
JOINED = 10_000


class Story:
    """A makes files and B receives them; A changes some and deletes some; the gateway restarts; A changes a few more.
    Then B, which has all, connects again and idles."""

    def __init__(self, home: Path) -> None:
        self.store = virtual_store()
        self.gateway = Gateway(self.store, home)
        self.a, self.b = Judge(1), Judge(2)
        self.requests: Counter[str] = Counter()

    def _count(self) -> None:
        """Add the requests so far, without those of the polls for segments."""
        for call in self.gateway.bucket.calls:
            kind = call.key.removeprefix(KEYS.base).partition("/")[0]
            polls = call.operation in ("get", "list") and kind in ("log", "checkpoints")
            self.requests["looks at the log" if polls else f"{call.operation} {kind}"] += 1

    async def play(self) -> None:
        """Play up to the last connection of B."""
        a, b, gateway = self.a, self.b, self.gateway
        await gateway.start()
        await a.connect(gateway.folder)
        await b.connect(gateway.folder)
        for number in range(FILES):
            a.edit(version(number, 10, 1))
        await asyncio.sleep(300)
        for number in range(CHANGED):
            a.edit(version(number, 20, 2))
        for number in range(CHANGED, CHANGED + GONE):
            a.edit(version(number, 20, 2, gone=True))
        await asyncio.sleep(300)
        self._count()
        await gateway.restart(a, b)
        for number in range(LATER):
            a.edit(version(number, 30, 3))
        await asyncio.sleep(300)
        await b.disconnect()
        await asyncio.sleep(100)

    async def idle(self) -> None:
        """Let B connect again, and play an hour."""
        await self.b.connect(self.gateway.folder)
        await asyncio.sleep(3600)
        await self.b.disconnect()
        await self.a.disconnect()
        self._count()
        await self.gateway.close()

    @property
    def log_bytes(self) -> int:
        """The bytes of all segments."""
        return sum(len(self.store.body(key)) for key in self.store.keys(f"{KEYS.base}log/"))


async def test_the_ordinary_case(tmp_path: Path) -> None:
    """There are the entries and objects of what A has made, and of B's claims some bytes for many files."""
    with inline_threads():
        story = Story(tmp_path / "state")
        await story.play()
        before = len(segments(story.store)), len(story.a.sent), len(story.b.sent)
        await story.idle()
    found = segments(story.store)
    entries = FILES + CHANGED + GONE + LATER
    assert before == (len(found), entries, entries), "nothing is written or sent while nothing happens"
    assert [entry.claims for entry in logged(story.store)] == [None] * entries
    assert story.requests["put objects"] == FILES + CHANGED + LATER
    assert story.requests.pop("list garbage") <= 2, "what is about to be deleted, every few hours"
    assert story.requests.keys() == {"looks at the log", "put log", "put objects"}
    assert story.requests["put log"] == len(found)
    assert sum(not segment.entries for segment in found) <= ALONE

    confirmed = [one for segment in found for one in segment.confirmations]
    ranges = sum(len(one.sequences) for one in confirmed)
    assert len(confirmed) <= len(found)
    extra = sum(len(encode_segment(one)) - len(encode_segment(replace(one, confirmations=()))) for one in found)
    assert extra <= CONFIRMATION * len(confirmed) + RANGE * ranges


async def test_what_an_ingested_file_costs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file info is parsed once, and it takes a part of a statement of the pending index and of the state each."""
    statements: Counter[str] = Counter()
    parsed: list[bytes] = []
    execute = Database.execute

    def count(database: Database, sql: str, *arguments: object) -> object:
        statements.update(what for what in ("pending", "files", "file_info FROM pending") if f" {what} " in f"{sql} ")
        return execute(database, sql, *arguments)

    def parse(raw: bytes) -> FileInfo:
        parsed.append(raw)
        return parse_file_info(raw)

    monkeypatch.setattr(Database, "execute", count)
    monkeypatch.setattr("untrusted_s3.sync.index_in.parse_file_info", parse)
    store = virtual_store()
    gateway, a = Gateway(store, tmp_path / "state"), Judge(1)
    with inline_threads():
        await gateway.start()
        for number in range(FILES):
            a.edit(version(number, 10, 1))
        await a.connect(gateway.folder)
        await asyncio.sleep(300)
        assert len(logged(store)) == len(parsed) == FILES
        assert not statements["file_info FROM pending"], "it is not read again"
        assert statements["pending"] <= 1.2 * FILES, "who announces it"
        assert statements["files"] <= 0.2 * FILES
        await a.disconnect()
        await gateway.close()


async def test_a_large_file_that_goes_back_to_what_it_was_moves_no_data(tmp_path: Path) -> None:
    """Neither does the device send it again, nor is the object read."""
    store, a = virtual_store(), Judge(1)
    bucket = SimulatedBucket(store)
    folder = new_folder(RECORD, bucket, tmp_path / "state", grid=PartGrid(single_put_size=1000, min_part_size=1024))
    with inline_threads():
        await folder.open()
        task = asyncio.ensure_future(run(folder))
        await a.connect(folder)
        for number, content in ((10, 1), (20, 2), (30, 1)):
            before = len(bucket.calls)
            a.edit(file("large", number, sizes=(4096,) * 20, content=content))
            await asyncio.sleep(60)
        await a.disconnect()
        task.cancel()
        await asyncio.wait([task])
        folder.close()
    first, _, again = (one.stored for one in logged(store))
    assert first == again is not None
    assert {call.operation for call in bucket.calls[before:] if "/objects/" in call.key} == {"size"}


async def fill(bucket: SimulatedBucket, directory: Path, number: int, *, files: int) -> None:
    """Write a log of files that device A has announced, without their objects."""
    state = FolderState(directory / "filling.sqlite")
    log = FolderLog(bucket, KEYS, state, device(9))
    await log.load()
    for start in range(0, files, 1000):
        infos = [version(name, number, 2, content=0) for name in range(start, min(start + 1000, files))]
        await log.append([replace(entry(info), source=device(1)) for info in infos])
    state.close()


async def join(home: Path, *, number: int, rank: int, files: int) -> tuple[Gateway, Judge, int]:
    """Let B join with an equal copy of a folder. Return what it has met, and how many bytes the log has grown by."""
    store = virtual_store()
    await fill(SimulatedBucket(store), home, 20, files=files)
    gateway, b = Gateway(store, home / "state"), Judge(2)
    await gateway.start()
    before = sum(len(store.body(key)) for key in store.keys(f"{KEYS.base}log/"))
    for name in range(files):
        b.edit(version(name, number, rank, content=0))
    await b.connect(gateway.folder)
    await asyncio.sleep(300)
    await b.disconnect()
    grown = sum(len(store.body(key)) for key in store.keys(f"{KEYS.base}log/")) - before
    return gateway, b, grown


@pytest.mark.parametrize(("number", "rank", "files"), [(20, 2, JOINED), (10, 1, 300)], ids=["equal", "older"])
async def test_a_device_joins_with_an_equal_copy(tmp_path: Path, number: int, rank: int, files: int) -> None:
    """It has what the folder has, or takes that over within a minute."""
    with inline_threads():
        gateway, b, grown = await join(tmp_path, number=number, rank=rank, files=files)
    assert gateway.folder.own_index.max_sequence == files, "no entries"
    assert all(gateway.claimed(name) == {device(1): 20, device(2): 20} for name in range(0, files, 100))
    assert b.sees_complete()
    assert grown <= 500
    await gateway.close()
