"""The scheduler of pulls: which pending files are pulled, and when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog.testing

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.simulated import Fault, SimulatedBucket, fail_once
from tests.sync.fakes import FakeSource, Pulling, running
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Entry
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.layout import name_hash

pytestmark = virtual_time

A, B = device(1), device(2)
BLOCKS = (1064, 1064)
SETTINGS = SyncSettings()


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Pulling]:
    async with running(Pulling(tmp_path, SimulatedBucket())) as pulling:
        yield pulling


async def retried(folder: Pulling) -> None:
    """Wait until failed pulls were tried again."""
    await asyncio.sleep(SETTINGS.pull_retry_interval)
    await settled()


async def test_files_are_brought_in(folder: Pulling) -> None:
    source = FakeSource()
    infos = [file(number, sizes=BLOCKS, sequence=number + 1) for number in range(10)]
    folder.puller.add_source(A, source)
    folder.announce(A, *infos)
    await settled()
    assert sorted(folder.names) == sorted(info.name for info in infos)
    assert len(folder.bucket.store.objects) == 10
    assert folder.pending.totals == (0, 0)
    assert folder.puller.idle
    assert folder.pending.handled(A) == IndexState(7, 10)


async def test_the_order_is_that_of_the_sequence_numbers(tmp_path: Path) -> None:
    settings = SyncSettings(concurrent_small_files=1)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings)) as folder:
        infos = [file(number, sequence=100 - number) for number in range(20)]
        folder.announce(A, *infos)
        folder.puller.add_source(A, FakeSource())
        await settled()
        assert folder.names == [info.name for info in reversed(infos)]


async def test_more_than_is_read_at_a_time(folder: Pulling) -> None:
    folder.announce(A, *(directory(number, sequence=number + 1) for number in range(1000)))
    folder.puller.add_source(A, FakeSource())
    await settled()
    assert folder.state.totals.directories == 1000
    assert folder.pending.totals == (0, 0)


async def test_few_large_file_infos_are_in_work_at_a_time(tmp_path: Path) -> None:
    infos = [directory(number, sequence=number + 1) for number in range(50)]
    settings = SyncSettings(file_infos_in_work=5 * infos[0].memory_size)  # a device gets two thirds
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings)) as folder:
        folder.hold = True
        folder.announce(A, *infos)
        folder.puller.add_source(A, FakeSource())
        most = 0
        for _ in infos:
            await settled()
            most = max(most, len(folder.held))
            folder.write_held(1)
        assert 3 <= most <= 4
        assert folder.state.totals.directories == 50
        assert folder.puller.memory_in_work == 0


async def test_a_device_leaves_memory_to_others(tmp_path: Path) -> None:
    infos = [directory(number, sequence=number + 1) for number in range(50)]
    settings = SyncSettings(file_infos_in_work=5 * infos[0].memory_size)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings)) as folder:
        folder.hold = True
        folder.announce(A, *infos)
        folder.puller.add_source(A, FakeSource())
        await settled()
        folder.announce(B, directory("other", sequence=1))
        folder.puller.add_source(B, FakeSource())
        await settled()
        assert folder.names[-1] == encrypted_name("other")
        folder.write_held(len(folder.held))
        folder.hold = False
        await settled()
        assert folder.state.totals.directories == 51


async def test_deletions_and_directories_need_no_data(folder: Pulling) -> None:
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, directory("d", sequence=1), deleted("gone", sequence=2))
    await settled()
    assert folder.committed == [Entry(directory("d", sequence=1), None, A), Entry(deleted("gone", sequence=2), None, A)]
    assert not source.asked
    assert not folder.bucket.calls


async def test_what_the_folder_has_is_not_pulled_again(folder: Pulling) -> None:
    folder.write_down(replace(entry(file("same", 3)), source=A))
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file("same", 3, sequence=1), file("other", sequence=2))
    await settled()
    assert folder.names == [encrypted_name("other")]
    assert folder.pending.handled(A) == IndexState(7, 2)


async def test_an_older_version_is_not_pulled_while_its_device_may_take_over_the_newer_one(folder: Pulling) -> None:
    folder.write_down(replace(entry(file("same", 3)), source=B))
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("same", 2, sequence=1), file("other", sequence=2))
    await settled()
    assert folder.names == [encrypted_name("other")]
    assert folder.pending.handled(A) == IndexState(7, 0)
    folder.announce(A, file("same", 4, sequence=3))
    await settled()
    assert folder.names[1:] == [encrypted_name("same")]
    assert folder.pending.handled(A) == IndexState(7, 3)


async def test_a_change_of_metadata_alone_writes_no_object(folder: Pulling) -> None:
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settled()
    asked, calls = len(source.asked), len(folder.bucket.calls)
    folder.announce(A, file("a", 2, sequence=2))
    await settled()
    assert folder.versions("a") == [1, 2]
    assert folder.committed[0].stored == folder.committed[1].stored
    assert (len(source.asked), len(folder.bucket.calls)) == (asked, calls)
    folder.announce(A, file("a", 3, sequence=3, content=1))
    await settled()
    assert folder.committed[2].stored != folder.committed[1].stored
    assert len(source.asked) == asked + 1


async def test_what_was_deleted_and_comes_back_is_pulled(folder: Pulling) -> None:
    folder.puller.add_source(A, FakeSource())
    for info in (file("a", 1, sequence=1), deleted("a", 2, sequence=2), file("a", 3, sequence=3)):
        folder.announce(A, info)
        await settled()
    assert folder.versions("a") == [1, 2, 3]
    assert folder.committed[2].stored is not None


async def test_what_was_deleted_and_comes_back_as_it_was_is_not_fetched_again(folder: Pulling) -> None:
    """As when a directory is renamed and renamed back."""
    source = FakeSource()
    folder.puller.add_source(A, source)
    for info in (file("a", 1, sequence=1, sizes=BLOCKS), deleted("a", 2, sequence=2)):
        folder.announce(A, info)
        await settled()
    asked = len(source.asked)
    assert asked == len(BLOCKS)
    folder.announce(A, file("a", 3, sequence=3, sizes=BLOCKS))
    await settled()
    assert folder.versions("a") == [1, 2, 3]
    assert folder.committed[2].stored == folder.committed[0].stored
    assert len(source.asked) == asked
    folder.announce(A, deleted("a", 4, sequence=4))
    await settled()
    folder.announce(A, file("a", 5, sequence=5, sizes=BLOCKS, content=1))
    await settled()
    assert len(source.asked) == asked + len(BLOCKS), "another content is"


@pytest.mark.parametrize("sources", [(A, B), (B, A)])
async def test_the_newest_version_wins(folder: Pulling, sources: tuple[DeviceID, DeviceID]) -> None:
    peers = {one: FakeSource() for one in sources}
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    for one, peer in peers.items():
        folder.puller.add_source(one, peer)
    await settled()
    assert folder.versions("a") == [2]
    assert not peers[A].asked
    assert folder.pending.totals == (0, 0)


async def test_a_version_that_came_meanwhile_is_pulled_next(folder: Pulling) -> None:
    source = FakeSource()
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settled()
    folder.announce(A, file("a", 2, sequence=2, content=1))
    await settled()
    source.go_on.set()
    await settled()
    assert folder.versions("a") == [1, 2]
    assert folder.pending.handled(A) == IndexState(7, 2)


@pytest.mark.parametrize("sizes", [(1064,), (1064,) * 4], ids=["small", "large"])
async def test_a_version_that_was_replaced_before_its_turn_is_not_pulled(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    settings = SyncSettings(concurrent_small_files=1, concurrent_large_files=1)
    grid = PartGrid(single_put_size=4000, min_part_size=4096)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings, grid=grid)) as folder:
        source = FakeSource()
        source.go_on.clear()
        folder.puller.add_source(A, source)
        folder.announce(A, file("first", sizes=sizes, sequence=1), file("a", 1, sizes=sizes, sequence=2))
        await settled()
        assert not source.asked_for("a")
        folder.announce(A, file("a", 2, sizes=sizes, sequence=3, content=1))
        source.go_on.set()
        await settled()
        assert folder.versions("a") == [2]
        assert folder.pending.totals == (0, 0)
        assert folder.puller.idle


async def test_a_change_under_way_goes_on_with_the_new_version_at_once(folder: Pulling) -> None:
    source = FakeSource()
    source.go_on.clear()
    source.lacks = {encrypted_name("a")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", 1, sequence=1))
    await settled()
    folder.announce(A, file("a", 2, sequence=2, content=1))
    source.go_on.set()
    while folder.failures == 0:
        await asyncio.sleep(0)
    source.lacks = set()
    await settled()
    assert folder.versions("a")[-1] == 2
    asked = len(source.asked)
    await retried(folder)
    assert len(source.asked) == asked, "nothing is left to be tried again"


async def test_blocks_come_from_all_that_announce_the_version(folder: Pulling) -> None:
    first, second, older = FakeSource(), FakeSource(), FakeSource()
    for one, source, version in ((A, first, 2), (B, second, 2), (device(3), older, 1)):
        folder.announce(one, file("a", version, sizes=(1064,) * 10, sequence=5, content=version))
        folder.puller.add_source(one, source)
    await settled()
    assert folder.versions("a") == [2]
    assert sorted(first.asked_for("a") + second.asked_for("a")) == list(range(10))
    assert len(first.asked_for("a")) == len(second.asked_for("a")) == 5
    assert not older.asked


async def test_a_block_that_one_lacks_comes_from_the_other(folder: Pulling) -> None:
    first, second = FakeSource(), FakeSource()
    first.lacks = {encrypted_name("a")}
    for one in (A, B):
        folder.announce(one, file("a", sizes=(1064,) * 4, sequence=5))
    folder.puller.add_source(A, first)
    folder.puller.add_source(B, second)
    await settled()
    assert folder.versions("a") == [1]
    assert sorted(second.asked_for("a")) == [0, 1, 2, 3]
    assert folder.failures == 0


@pytest.mark.parametrize("who", [A, B])
async def test_a_peer_that_comes_during_a_pull_is_asked_for_the_rest(folder: Pulling, who: DeviceID) -> None:
    """It is another peer that has announced the version meanwhile, or the same one over a new connection."""
    info = file("a", sizes=(1064,) * 4, sequence=5)
    gone, come = FakeSource(), FakeSource()
    gone.go_on.clear()
    folder.puller.add_source(A, gone)
    folder.announce(A, info)
    await settled()
    assert gone.asked_for("a") == [0, 1, 2, 3]
    if who == B:
        folder.announce(B, info)
    folder.puller.add_source(who, come)
    gone.lacks = {encrypted_name("a")}
    gone.go_on.set()
    await settled()
    assert come.asked_for("a") == [0, 1, 2, 3]
    assert folder.versions("a") == [1]
    assert folder.failures == 0


async def test_a_failure_is_tried_again_after_a_while(folder: Pulling) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name("a"), encrypted_name("b")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("b", sequence=2), file("c", sequence=3))
    await settled()
    assert folder.names == [encrypted_name("c")]
    assert len(source.asked) == 3
    await asyncio.sleep(0.99 * SETTINGS.pull_retry_interval)
    assert len(source.asked) == 3
    await asyncio.sleep(0.02 * SETTINGS.pull_retry_interval)
    assert len(source.asked) == 5
    source.lacks = set()
    await retried(folder)
    assert len(source.asked) == 5, "the second pause is twice as long"
    await retried(folder)
    assert sorted(folder.names) == sorted(map(encrypted_name, "abc"))
    assert folder.pending.handled(A) == IndexState(7, 3)
    assert folder.puller.error is None


async def test_a_failure_waits_whatever_happens_to_others(folder: Pulling) -> None:
    source = FakeSource()
    source.go_on.clear()
    source.lacks = {encrypted_name("a"), encrypted_name("b")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("b", sequence=2))
    await settled()
    folder.announce(A, file("b", 2, sequence=3, content=1))  # due at once
    source.go_on.set()
    await settled()
    assert source.asked_for("b") == [0, 0]
    assert source.asked_for("a") == [0]
    # A new version of it, or somebody else who may have it, is no repetition.
    folder.announce(A, file("a", 2, sequence=4, content=1))
    await settled()
    assert source.asked_for("a") == [0, 0]
    folder.puller.add_source(B, FakeSource())
    await settled()
    assert source.asked_for("a") == [0, 0, 0]


async def test_many_failures_are_told_once(folder: Pulling) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name(number) for number in range(50)}
    folder.puller.add_source(A, source)
    with structlog.testing.capture_logs() as logs:
        folder.announce(A, *(file(number, sequence=number + 1) for number in range(50)))
        await settled()
        source.go_on.clear()
        await retried(folder)
    assert [line["event"] for line in logs] == ["pull failed", "retrying failed pulls"]
    assert logs[1]["files"] == folder.failures == 50


@pytest.mark.parametrize("newer_is_connected", [False, True])
async def test_a_failure_beside_a_newer_version_does_not_spin(folder: Pulling, newer_is_connected: bool) -> None:
    first, second = FakeSource(), FakeSource()
    first.lacks = second.lacks = {encrypted_name("a")}
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    folder.puller.add_source(A, first)
    if newer_is_connected:
        folder.puller.add_source(B, second)
    await settled()
    assert len(first.asked) + len(second.asked) == 1
    assert folder.failures == 1
    second.lacks = set()
    if not newer_is_connected:
        folder.puller.add_source(B, second)
    await retried(folder)
    assert folder.versions("a") == [2]


async def test_an_older_version_is_better_than_one_whose_source_has_gone(folder: Pulling) -> None:
    first, second = FakeSource(), FakeSource()
    second.go_on.clear()
    folder.announce(A, file("a", 1, sequence=5))
    folder.announce(B, file("a", 2, sequence=5, content=1))
    folder.puller.add_source(A, first)
    folder.puller.add_source(B, second)
    await settled()
    second.lacks = {encrypted_name("a")}
    folder.puller.remove_source(B, second)
    second.go_on.set()
    await settled()
    await retried(folder)
    assert folder.versions("a") == [1]


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.ANSWER_LOST])
async def test_a_failure_of_the_store_is_told_and_tried_again(folder: Pulling, fault: Fault) -> None:
    folder.bucket.fault = fail_once("put", fault)
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("a", sequence=1))
    await settled()
    errors = [folder.puller.error]
    assert folder.committed == []
    await retried(folder)
    errors.append(folder.puller.error)
    assert errors[0] and errors[1] is None
    assert folder.versions("a") == [1]


async def test_a_store_in_trouble_is_tried_less_and_less(folder: Pulling) -> None:
    """Blocks are not requested again and again for a store that cannot take them."""
    source = FakeSource()
    folder.puller.add_source(A, source)
    folder.bucket.fault = lambda call: Fault.UNREACHABLE
    count = 3 * SETTINGS.concurrent_small_files
    folder.announce(A, *(file(number, sequence=number + 1) for number in range(count)))
    tries = [0.0]
    for number in range(1, 8):
        await settled()
        assert len(source.asked) <= number * SETTINGS.concurrent_small_files
        before = len(source.asked)
        while len(source.asked) == before:
            await asyncio.sleep(0.5)
        tries.append(source.times[-1])
    delays = [round(later - earlier) for earlier, later in itertools.pairwise(tries)]
    assert delays == [5, 10, 20, 40, 60, 60, 60]
    await settled()
    folder.bucket.fault = fail_once("put", Fault.UNREACHABLE, number=2)
    await asyncio.sleep(SETTINGS.max_pull_retry_interval)
    # One of the files succeeds, and with it the store's troubles are over.
    assert len(folder.committed) == count - 1
    await retried(folder)
    assert len(folder.committed) == count
    assert folder.puller.error is None


async def test_one_key_that_the_store_never_takes_costs_few_tries_and_stops_nothing(folder: Pulling) -> None:
    source = FakeSource()
    folder.puller.add_source(A, source)
    bad = file("bad", sequence=1)
    key = f"/{name_hash(bad.name)}/"
    folder.bucket.fault = lambda call: Fault.UNREACHABLE if key in call.key else None
    folder.announce(A, bad)
    for number in range(600):
        folder.announce(A, file(number, sequence=number + 2))
        await asyncio.sleep(1)
        assert len(folder.committed) >= number - 2 * SETTINGS.pull_retry_interval
    await asyncio.sleep(SETTINGS.pull_retry_interval)
    assert len(folder.committed) == 600
    assert 5 <= len(source.asked_for("bad")) <= 20
    assert folder.puller.failing[0] == 1
    folder.bucket.fault = lambda call: None
    await asyncio.sleep(SETTINGS.max_pull_retry_interval)
    assert len(folder.committed) == 601
    assert folder.puller.error is None


async def test_the_error_of_a_file_that_is_not_wanted_any_more_is_forgotten(folder: Pulling) -> None:
    folder.bucket.fault = lambda call: Fault.UNREACHABLE
    folder.puller.add_source(A, FakeSource())
    folder.announce(A, file("a", sequence=1))
    await settled()
    assert folder.puller.error
    folder.announce(A, deleted("a", 2, sequence=2))
    await settled()
    await retried(folder)
    assert folder.versions("a") == [2]
    assert folder.puller.error is None


async def test_without_a_source_nothing_is_tried(folder: Pulling) -> None:
    folder.announce(A, file("a", sequence=1), directory("d", sequence=2))
    await settled()
    assert folder.committed == []
    source = FakeSource()
    folder.puller.add_source(A, source)
    await settled()
    assert len(folder.committed) == 2
    folder.puller.remove_source(A, FakeSource())
    assert folder.puller.sources.connected == {A: source}, "the end of an older session changes nothing"
    folder.puller.remove_source(A, source)
    folder.announce(A, directory("e", sequence=3))
    await settled()
    assert len(folder.committed) == 2


async def test_a_source_that_goes_in_the_middle_and_comes_back(folder: Pulling) -> None:
    source = FakeSource()
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sizes=BLOCKS, sequence=number + 1) for number in range(5)))
    await settled()
    folder.puller.remove_source(A, source)
    source.lacks = set(map(encrypted_name, range(5)))
    source.go_on.set()
    await settled()
    assert folder.committed == []
    folder.puller.add_source(A, FakeSource())
    await settled()
    assert len(folder.committed) == 5


async def test_it_can_be_run_again(folder: Pulling) -> None:
    """Pulls that were cancelled start again, and failures are tried again as before."""
    await folder.stop()
    source = FakeSource()
    source.lacks = {encrypted_name("missing")}
    source.go_on.clear()
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1), file("missing", sequence=2))
    for _ in range(2):
        folder.start()
        await settled()
        await folder.stop()
        assert folder.puller.idle
    source.go_on.set()
    for _ in range(2):
        folder.start()
        await settled()
        before = len(source.asked_for("missing"))
        await retried(folder)
        assert len(source.asked_for("missing")) == before + 1, "it is tried again after a while"
        await folder.stop()
        await retried(folder)
        assert len(source.asked_for("missing")) == before + 1, "a stop ends that"
    assert folder.versions("a") == [1]


async def test_pulls_that_are_cancelled_before_their_first_step_begin_again(folder: Pulling) -> None:
    source = FakeSource()
    await settled()
    others, cancelled = asyncio.all_tasks(), []

    def cancel_new_tasks() -> None:
        for task in asyncio.all_tasks() - others:
            task.cancel()
            cancelled.append(task)

    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sizes=BLOCKS, sequence=1))
    asyncio.get_running_loop().call_soon(cancel_new_tasks)  # right after the puller's own step
    await settled()
    assert cancelled and not source.asked
    assert folder.puller.idle
    folder.puller.rescan()
    await settled()
    assert folder.names == [encrypted_name("a")]


async def test_work_in_flight_is_bounded(tmp_path: Path) -> None:
    settings = SyncSettings(concurrent_small_files=4, concurrent_large_files=2, queued_large_files=3)
    grid = PartGrid(single_put_size=4000, min_part_size=4096)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings, grid=grid)) as folder:
        source = FakeSource()
        source.go_on.clear()
        large = [file(f"large {number}", sizes=(1064,) * 4, sequence=2 * number + 1) for number in range(20)]
        small = [file(f"small {number}", sequence=2 * number + 2) for number in range(20)]
        folder.announce(A, *sorted(large + small, key=lambda info: info.message.sequence))
        folder.puller.add_source(A, source)
        await settled()
        asked = {name for name, _ in source.asked}
        assert len(asked & {info.name for info in small}) <= 4
        assert len(asked & {info.name for info in large}) == 2
        source.go_on.set()
        await settled()
        assert len(folder.committed) == 40
        assert folder.puller.idle


async def test_entries_that_wait_for_the_log_are_bounded(tmp_path: Path) -> None:
    settings = SyncSettings(entries_in_work=10)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings)) as folder:
        folder.hold = True
        folder.puller.add_source(A, FakeSource())
        folder.announce(A, *(directory(number, sequence=number + 1) for number in range(30)))
        await settled()
        assert len(folder.committed) == 10
        assert not folder.puller.idle
        folder.write_held(10)
        await settled()
        assert len(folder.committed) == 20
        folder.hold = False
        folder.write_held(10)
        await settled()
        assert len(set(folder.names)) == len(folder.names) == 30


# Failures of files


async def test_a_peer_that_cannot_read_300_files_is_asked_rarely(folder: Pulling) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name(number) for number in range(300)}
    folder.puller.add_source(A, source)
    folder.announce(A, *(file(number, sequence=number + 1) for number in range(300)))
    await asyncio.sleep(120)
    assert len(source.asked) <= 300 * 6
    count, example = folder.puller.failing
    assert count == 300
    assert example is not None and example.name in source.lacks and "NO_SUCH" not in str(example.error)
    await asyncio.sleep(86_400)
    assert len(source.asked) <= 300 * (14 + 24)
    source.lacks.clear()
    await asyncio.sleep(SETTINGS.max_failure_interval)
    assert len(folder.names) == 300
    assert folder.puller.failing == (0, None)
    assert folder.puller.error is None


async def test_the_pauses_begin_again_with_a_new_version(folder: Pulling) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name("a")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1))
    await asyncio.sleep(3000)
    asked = len(source.asked)
    folder.announce(A, file("a", 2, sequence=2, content=1))
    await asyncio.sleep(1.01 * SETTINGS.pull_retry_interval)
    assert len(source.asked) == asked + 2


async def test_another_device_with_the_version_is_asked_at_once(folder: Pulling) -> None:
    source, other = FakeSource(), FakeSource()
    source.lacks = {encrypted_name("a")}
    folder.puller.add_source(A, source)
    folder.puller.add_source(B, other)
    folder.announce(A, file("a", sequence=1))
    await asyncio.sleep(3000)
    assert not folder.names
    folder.announce(B, file("a", sequence=1))
    await settled()
    assert folder.names == [encrypted_name("a")]


async def test_who_connects_again_is_asked_once(folder: Pulling) -> None:
    source = FakeSource()
    source.lacks = {encrypted_name("a")}
    folder.puller.add_source(A, source)
    folder.announce(A, file("a", sequence=1))
    await asyncio.sleep(3000)
    for _ in range(3):
        asked = len(source.asked)
        folder.puller.remove_source(A, source)
        folder.puller.add_source(A, source)
        await asyncio.sleep(60)
        assert len(source.asked) == asked + 1
