from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.simulated import Fault, SimulatedBucket, fail_once
from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.pending import PendingIndex
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.sync.puller import Puller

A, B = device(1), device(2)
BLOCKS = (1064, 1064)


class FakeSource:
    """A peer that has every block but those of the names in `lacks`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.lacks: set[str] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        assert folder_id == "folder"
        self.asked.append((name, number))
        await self.go_on.wait()
        await asyncio.sleep(0)
        if name in self.lacks:
            raise BlockUnavailable("no such file")
        return memoryview(hashlib.shake_128(block.hash).digest(block.size))

    def asked_for(self, name: str | int) -> list[int]:
        return [number for asked, number in self.asked if asked == encrypted_name(name)]


class FakeTimer:
    def __init__(self, delay: float, callback: Callable[..., object]) -> None:
        self.delay, self.callback, self.cancelled = delay, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Folder:
    """A puller with all that it needs; what it commits is in the log at once unless `hold` is set."""

    def __init__(self, tmp_path: Path, bucket: SimulatedBucket, budget: int = 1_000_000) -> None:
        self.budget = budget
        self.bucket = bucket
        self.state = FolderState(tmp_path / "state.sqlite")
        self.pending = PendingIndex(tmp_path / "pending.sqlite")
        self.counters = Counters()
        self.puller = Puller("folder", self.state, self.pending, self.new_files(), self._commit, self.counters)
        self.committed: list[Entry] = []
        self.hold = False
        self.timers: list[FakeTimer] = []
        self.task: asyncio.Task[None]

    def new_files(self) -> ObjectWriter:
        return ObjectWriter(
            self.bucket,
            FolderKeys.of("folder"),
            ByteBudget(self.budget),
            asyncio.Semaphore(16),
            self.counters,
            ObjectSettings(),
        )

    def _commit(self, change: Entry) -> None:
        self.committed.append(change)
        if not self.hold:
            asyncio.get_running_loop().call_soon(self.write_down, change)

    def write_down(self, change: Entry) -> None:
        if self.state.wants(change.file_info):
            segment = Segment(device(9), bytes(16), 0, self.state.sequence + 1, (change,), ())
            self.state.apply(self.state.position + 1, segment)
        self.pending.remove(
            [other for other in self.pending.of_name(change.file_info.name) if not self.state.wants(other.file_info)]
        )
        self.puller.committed(change.file_info.name)

    def announce(self, one: DeviceID, *infos: FileInfo) -> None:
        last = max(info.message.sequence for info in infos)
        self.pending.add(one, IndexState(7, last), infos, [])
        self.puller.wake()

    @property
    def names(self) -> list[str]:
        return [change.file_info.name for change in self.committed]

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        self.timers.append(FakeTimer(delay, partial(callback, *args)))
        return self.timers[-1]

    def time_passes(self) -> None:
        due, self.timers = self.timers, []
        for timer in due:
            if not timer.cancelled:
                timer.callback()


@contextlib.asynccontextmanager
async def running(opened: Folder, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Folder]:
    """Works until the test has ended; timers run when the test says so."""
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", opened.call_later)
    opened.task = asyncio.ensure_future(opened.puller.run())
    yield opened
    opened.task.cancel()
    await asyncio.wait([opened.task])
    assert asyncio.all_tasks() == {asyncio.current_task()}, "running pulls end with it"
    opened.state.close()
    opened.pending.close()


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Folder]:
    async with running(Folder(tmp_path, SimulatedBucket()), monkeypatch) as opened:
        yield opened


async def settle(turns: int = 300) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def versions(folder: Folder, name: str | int) -> list[int]:
    wanted = encrypted_name(name)
    return [
        change.file_info.message.version.counters[0].value
        for change in folder.committed
        if change.file_info.name == wanted
    ]


async def test_files_are_brought_in(folder: Folder) -> None:
    source = FakeSource()
    infos = [file(number, sizes=BLOCKS, sequence=number + 1) for number in range(10)]
    folder.puller.add_source(A, source)
    folder.announce(A, *infos)
    await settle()
    assert sorted(folder.names) == sorted(info.name for info in infos)
    assert len(folder.bucket.store.objects) == 10
    assert folder.pending.totals == (0, 0)
    assert folder.puller.idle
    assert folder.pending.handled(A) == IndexState(7, 10)


async def test_the_order_is_that_of_the_sequence_numbers(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONCURRENT_SMALL_FILES", 1)
    source = FakeSource()
    infos = [file(number, sequence=100 - number) for number in range(20)]
    folder.announce(A, *infos)
    folder.puller.add_source(A, source)
    await settle(1000)
    assert folder.names == [info.name for info in reversed(infos)]


async def test_more_than_is_read_at_a_time(folder: Folder) -> None:
    folder.announce(A, *(directory(number, sequence=number + 1) for number in range(1000)))
    folder.puller.add_source(A, FakeSource())
    await settle(3000)
    assert folder.state.totals.directories == 1000
    assert folder.pending.totals == (0, 0)


async def test_few_large_file_infos_are_in_work_at_a_time(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [directory(number, sequence=number + 1) for number in range(50)]
    monkeypatch.setattr(limits, "FILE_INFOS_IN_WORK", 3 * len(infos[0].raw))
    monkeypatch.setattr(limits, "PENDING_BATCH_SIZE", 5 * len(infos[0].raw))
    waiting: list[Entry] = []
    monkeypatch.setattr(folder.puller, "_commit", waiting.append)
    folder.announce(A, *infos)
    folder.puller.add_source(A, FakeSource())
    most = 0
    for _ in infos:
        await settle(50)
        most = max(most, len(waiting))
        folder.write_down(waiting.pop(0))
    assert 3 <= most <= 4
    assert folder.state.totals.directories == 50
    assert folder.puller._bytes_in_work == 0


async def test_deletions_and_directories_need_no_data(folder: Folder) -> None:
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, directory("d", sequence=1), deleted("gone", sequence=2))
    await settle()
    assert folder.committed == [Entry(directory("d", sequence=1), None), Entry(deleted("gone", sequence=2), None)]
    assert not source.asked
    assert not folder.bucket.calls


async def test_what_the_folder_has_is_not_pulled_again(folder: Folder) -> None:
    folder.write_down(entry(file("same", 3)))
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file("same", 2, sequence=1), file("other", sequence=2))
    await settle()
    assert folder.names == [encrypted_name("other")]
    assert folder.pending.handled(A) == IndexState(7, 2)


async def test_a_change_of_metadata_alone_writes_no_object(folder: Folder) -> None:
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settle()
    asked, calls = len(source.asked), len(folder.bucket.calls)
    folder.announce(A, file("a", 2, sequence=2))
    await settle()
    assert versions(folder, "a") == [1, 2]
    assert folder.committed[0].stored == folder.committed[1].stored
    assert (len(source.asked), len(folder.bucket.calls)) == (asked, calls)
    folder.announce(A, file("a", 3, sequence=3, content=1))
    await settle()
    assert folder.committed[2].stored != folder.committed[1].stored
    assert len(source.asked) == asked + 1


async def test_what_was_deleted_and_comes_back_is_pulled(folder: Folder) -> None:
    folder.puller.add_source(A, FakeSource())
    for info in (file("a", 1, sequence=1), deleted("a", 2, sequence=2), file("a", 3, sequence=3)):
        folder.announce(A, info)
        await settle()
    assert versions(folder, "a") == [1, 2, 3]
    assert folder.committed[2].stored is not None


@pytest.mark.parametrize("sources", [(A, B), (B, A)])
async def test_the_newest_version_wins(folder: Folder, sources: tuple[DeviceID, DeviceID]) -> None:
    peers = {one: FakeSource() for one in sources}
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    for one, peer in peers.items():
        folder.puller.add_source(one, peer)
    await settle()
    assert versions(folder, "a") == [2]
    assert not peers[A].asked
    assert folder.pending.totals == (0, 0)


async def test_a_version_that_came_meanwhile_is_pulled_next(folder: Folder) -> None:
    source = FakeSource()
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settle()
    folder.announce(A, file("a", 2, sequence=2, content=1))
    await settle()
    source.go_on.set()
    await settle()
    assert versions(folder, "a") == [1, 2]
    assert folder.pending.handled(A) == IndexState(7, 2)


async def test_a_change_under_way_goes_on_with_the_new_version_at_once(folder: Folder) -> None:
    source = FakeSource()
    source.go_on.clear()
    source.lacks = {encrypted_name("a")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settle()
    folder.announce(A, file("a", 2, sequence=2, content=1))
    source.go_on.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.lacks = set()
    await settle()
    assert versions(folder, "a")[-1] == 2
    assert folder.timers == []


async def test_blocks_come_from_all_that_announce_the_version(folder: Folder) -> None:
    first, second, older = FakeSource(), FakeSource(), FakeSource()
    for one, source, version in ((A, first, 2), (B, second, 2), (device(3), older, 1)):
        folder.announce(one, file("a", version, sizes=(1064,) * 10, sequence=5, content=version))
        folder.puller.sources[one] = source
    folder.puller.rescan()
    await settle()
    assert versions(folder, "a") == [2]
    assert sorted(first.asked_for("a") + second.asked_for("a")) == list(range(10))
    assert len(first.asked_for("a")) == len(second.asked_for("a")) == 5
    assert not older.asked


async def test_a_block_that_one_lacks_comes_from_the_other(folder: Folder) -> None:
    first, second = FakeSource(), FakeSource()
    first.lacks = {encrypted_name("a")}
    for one in (A, B):
        folder.announce(one, file("a", sizes=(1064,) * 4, sequence=5))
    folder.puller.add_source(A, first)
    folder.puller.add_source(B, second)
    await settle()
    assert versions(folder, "a") == [1]
    assert sorted(second.asked_for("a")) == [0, 1, 2, 3]
    assert folder.timers == []


@pytest.mark.parametrize("who", [A, B])
async def test_who_comes_in_the_middle_of_a_pull_is_asked_for_the_rest(folder: Folder, who: DeviceID) -> None:
    """Another peer that has announced the version meanwhile, or the same one over a new connection."""
    info = file("a", sizes=(1064,) * 4, sequence=5)
    gone, come = FakeSource(), FakeSource()
    gone.go_on.clear()
    folder.puller.add_source(A, gone)
    folder.announce(A, info)
    await settle()
    assert gone.asked_for("a") == [0, 1, 2, 3]
    if who == B:
        folder.announce(B, info)
    folder.puller.add_source(who, come)
    gone.lacks = {encrypted_name("a")}
    gone.go_on.set()
    await settle()
    assert come.asked_for("a") == [0, 1, 2, 3]
    assert versions(folder, "a") == [1]
    assert folder.timers == [], "nothing has failed"


async def test_a_failure_is_tried_again_after_a_while(folder: Folder) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name("a"), encrypted_name("b")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("b", sequence=2), file("c", sequence=3))
    await settle()
    assert folder.names == [encrypted_name("c")]
    assert [timer.delay for timer in folder.timers] == [limits.PULL_RETRY_INTERVAL]
    assert len(source.asked) == 3
    folder.time_passes()
    await settle()
    assert len(source.asked) == 5
    source.lacks = set()
    folder.time_passes()
    await settle()
    assert sorted(folder.names) == sorted(map(encrypted_name, "abc"))
    assert folder.pending.handled(A) == IndexState(7, 3)
    assert folder.puller.error is None


async def test_a_failure_waits_whatever_happens_to_others(folder: Folder) -> None:
    source = FakeSource()
    source.go_on.clear()
    source.lacks = {encrypted_name("a"), encrypted_name("b")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("b", sequence=2))
    await settle()
    folder.announce(A, file("b", 2, sequence=3, content=1))  # due at once
    source.go_on.set()
    await settle()
    assert source.asked_for("b") == [0, 0]
    assert source.asked_for("a") == [0]
    # A new version of it, or somebody else who may have it, is no repetition.
    folder.announce(A, file("a", 2, sequence=4, content=1))
    await settle()
    assert source.asked_for("a") == [0, 0]
    folder.puller.add_source(B, FakeSource())
    await settle()
    assert source.asked_for("a") == [0, 0, 0]


async def test_many_failures_are_told_once(folder: Folder) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name(number) for number in range(50)}
    folder.puller.add_source(A, source)
    with structlog.testing.capture_logs() as logs:
        folder.announce(A, *(file(number, sequence=number + 1) for number in range(50)))
        await settle()
        folder.time_passes()
    assert [line["event"] for line in logs] == ["pull failed", "trying again what failed"]
    assert logs[1]["files"] == folder.counters.pull_failures._value.get() == 50


@pytest.mark.parametrize("newer_is_connected", [False, True])
async def test_a_failure_beside_a_newer_version_does_not_spin(folder: Folder, newer_is_connected: bool) -> None:
    first, second = FakeSource(), FakeSource()
    first.lacks = second.lacks = {encrypted_name("a")}
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    folder.puller.add_source(A, first)
    if newer_is_connected:
        folder.puller.add_source(B, second)
    await settle()
    assert len(first.asked) + len(second.asked) == 1
    assert len(folder.timers) == 1
    second.lacks = set()
    if not newer_is_connected:
        folder.puller.add_source(B, second)
    folder.time_passes()
    await settle()
    assert versions(folder, "a") == [2]


async def test_an_older_version_is_better_than_one_whose_source_has_gone(folder: Folder) -> None:
    first, second = FakeSource(), FakeSource()
    second.go_on.clear()
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    folder.puller.add_source(A, first)
    folder.puller.add_source(B, second)
    await settle()
    second.lacks = {encrypted_name("a")}
    folder.puller.remove_source(B, second)
    second.go_on.set()
    await settle()
    folder.time_passes()
    await settle()
    assert versions(folder, "a") == [1]


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.ANSWER_LOST])
async def test_a_failure_of_the_store_is_told_and_tried_again(folder: Folder, fault: Fault) -> None:
    folder.bucket.fault = fail_once("put", fault)
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("a", sequence=1))
    await settle()
    errors = [folder.puller.error]
    assert folder.committed == []
    folder.time_passes()
    await settle()
    errors.append(folder.puller.error)
    assert errors[0] and errors[1] is None
    assert versions(folder, "a") == [1]


async def test_a_store_in_trouble_is_tried_less_and_less(folder: Folder) -> None:
    """Blocks are not fetched again and again for a store that cannot take them."""
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.bucket.fault = lambda call: Fault.UNREACHABLE
    count = 3 * limits.CONCURRENT_SMALL_FILES
    folder.announce(A, *(file(number, sequence=number + 1) for number in range(count)))
    delays = []
    for tries in range(1, 7):
        await settle()
        assert len(source.asked) <= tries * limits.CONCURRENT_SMALL_FILES
        delays += [timer.delay for timer in folder.timers]
        folder.time_passes()
    assert delays == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    await settle()
    folder.bucket.fault = fail_once("put", Fault.UNREACHABLE, number=2)
    folder.time_passes()
    await settle()
    # One of the files succeeds, and with it the store's troubles are over.
    assert len(folder.committed) == count - 1
    assert [timer.delay for timer in folder.timers] == [limits.PULL_RETRY_INTERVAL]
    folder.time_passes()
    await settle()
    assert len(folder.committed) == count
    assert folder.puller.error is None


async def test_the_error_of_a_file_that_is_not_wanted_any_more_is_forgotten(folder: Folder) -> None:
    folder.bucket.fault = lambda call: Fault.UNREACHABLE
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("a", sequence=1))
    await settle()
    assert folder.puller.error
    folder.announce(A, deleted("a", 2, sequence=2))
    await settle()
    folder.time_passes()
    await settle()
    assert versions(folder, "a") == [2]
    assert folder.puller.error is None


async def test_without_a_source_nothing_is_tried(folder: Folder) -> None:
    folder.announce(A, file("a", sequence=1), directory("d", sequence=2))
    await settle()
    assert folder.committed == []
    source = FakeSource()
    folder.puller.add_source(A, source)
    await settle()
    assert len(folder.committed) == 2
    folder.puller.remove_source(A, FakeSource())
    assert folder.puller.sources == {A: source}, "an older session's end does not matter"
    folder.puller.remove_source(A, source)
    folder.announce(A, directory("e", sequence=3))
    await settle()
    assert len(folder.committed) == 2


async def test_a_source_that_goes_in_the_middle_and_comes_back(folder: Folder) -> None:
    source = FakeSource()
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sizes=BLOCKS, sequence=number + 1) for number in range(5)))
    await settle()
    folder.puller.remove_source(A, source)
    source.lacks = set(map(encrypted_name, range(5)))
    source.go_on.set()
    await settle()
    assert folder.committed == []
    folder.puller.add_source(A, FakeSource())
    await settle()
    assert len(folder.committed) == 5


async def test_it_can_be_run_again(folder: Folder) -> None:
    """What was under way when it was stopped is begun anew, and failures are tried again as before."""
    folder.task.cancel()
    await asyncio.wait([folder.task])
    source = FakeSource()
    source.lacks = {encrypted_name("missing")}
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("missing", sequence=2))
    for _ in range(2):
        folder.task = asyncio.ensure_future(folder.puller.run())
        await settle()
        folder.task.cancel()
        await asyncio.wait([folder.task])
        assert folder.puller.idle
    source.go_on.set()
    for _ in range(2):
        folder.task = asyncio.ensure_future(folder.puller.run())
        await settle()
        assert [timer.cancelled for timer in folder.timers] == [False]
        folder.task.cancel()
        await asyncio.wait([folder.task])
        assert [timer.cancelled for timer in folder.timers] == [True]
        folder.timers.clear()
    assert versions(folder, "a") == [1]


async def test_pulls_that_are_cancelled_before_their_first_step_begin_again(folder: Folder) -> None:
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("a", sizes=BLOCKS, sequence=1))
    folder.puller._start_some()
    pulls = list(folder.puller._tasks)
    assert pulls
    for pull in pulls:
        pull.cancel()
    await asyncio.wait(pulls)
    folder.puller.rescan()
    await settle()
    assert folder.names == [encrypted_name("a")]


async def test_work_in_flight_is_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONCURRENT_SMALL_FILES", 4)
    monkeypatch.setattr(limits, "CONCURRENT_LARGE_FILES", 2)
    monkeypatch.setattr(limits, "QUEUED_LARGE_FILES", 3)
    monkeypatch.setattr(limits, "SINGLE_PUT_SIZE", 4000)
    monkeypatch.setattr(limits, "MIN_PART_SIZE", 4096)
    source = FakeSource()
    source.go_on.clear()
    large = [file(f"large {number}", sizes=(1064,) * 4, sequence=2 * number + 1) for number in range(20)]
    small = [file(f"small {number}", sequence=2 * number + 2) for number in range(20)]
    folder.announce(A, *sorted(large + small, key=lambda info: info.message.sequence))
    folder.puller.add_source(A, source)
    await settle()
    asked = {name for name, _ in source.asked}
    assert len(asked & {info.name for info in small}) <= 4
    assert len(asked & {info.name for info in large}) == 2
    source.go_on.set()
    await settle(5000)
    assert len(folder.committed) == 40
    assert folder.puller.idle


async def test_entries_that_wait_for_the_log_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRIES_IN_WORK", 10)
    folder.hold = True
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, *(directory(number, sequence=number + 1) for number in range(30)))
    await settle()
    assert len(folder.committed) == 10
    assert not folder.puller.idle
    for change in folder.committed[:10]:
        folder.write_down(change)
    await settle()
    assert len(folder.committed) == 20
    folder.hold = False
    for change in folder.committed[10:20]:
        folder.write_down(change)
    await settle()
    assert len(set(folder.names)) == len(folder.names) == 30
