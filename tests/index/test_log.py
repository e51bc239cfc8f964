"""Gateways that append to one log: in any order, with every fault, and after every crash."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.index.gateways import KEYS, SimulatedGateway, check_log, contents, written_segments
from tests.simulated import (
    Call,
    Crash,
    Fault,
    Phase,
    Scheduler,
    SimulatedBucket,
    SimulatedClock,
    SimulatedStore,
    fail_on,
    fail_once,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.errors import DataError, PreconditionFailed, StoreError, StoreUnreachable
from untrusted_s3.index.entry import Entry, PeerCursor
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.format import SEGMENT_RETENTION
from untrusted_s3.store.layout import name_key

SETTINGS = LogSettings()
THREE_SEGMENTS = LogSettings(checkpoint_cost=3 * SETTINGS.segment_cost)  # are worth a checkpoint

Batch = dict[int, int]  # the version of each name
BATCHES = st.lists(st.dictionaries(st.integers(0, 3), st.integers(1, 6), min_size=1, max_size=3), max_size=4)
SCHEDULES = st.lists(st.integers(0, 511), max_size=80)
FAULTS = st.dictionaries(
    st.integers(1, 20), st.sampled_from([Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.EMPTIED]), max_size=5
)


def entries(batch: Batch) -> list[Entry]:
    kinds = (file, directory, deleted)
    return [entry(kinds[(name + version) % 3](name, version)) for name, version in batch.items()]


async def append_all(gateway: SimulatedGateway, batches: Sequence[Batch], done: list[Batch]) -> None:
    """Append as a gateway does, which retries what fails."""
    while True:
        try:
            await gateway.log.load()
            break
        except StoreError:
            pass
    for batch in batches:
        while True:
            try:
                await gateway.log.append(entries(batch))
                break
            except StoreError:
                pass
        done.append(batch)
        for name, version in batch.items():
            assert not gateway.state.wants(file(name, version)), "the state reflects what append was given"


def check_reflected(state: FolderState, done: Sequence[Batch]) -> None:
    for name, version in itertools.chain.from_iterable(batch.items() for batch in done):
        found = state.entry(encrypted_name(name))
        assert found is not None
        assert found.file_info.message.version.counters[0].value >= version


@settings(deadline=None, max_examples=120)
@given(st.lists(BATCHES, min_size=2, max_size=3), SCHEDULES, st.lists(FAULTS, min_size=3, max_size=3))
def test_all_gateways_converge(batches: list[list[Batch]], schedule: list[int], faults: list[dict[int, Fault]]) -> None:
    async def play(directory: Path) -> None:
        store = SimulatedStore()
        scheduler = Scheduler(schedule)
        gateways = []
        for number, script in enumerate(faults[: len(batches)]):
            bucket = SimulatedBucket(store, gate=scheduler.gate(number), fault=fail_on(script))
            gateways.append(SimulatedGateway(bucket, number, directory))
        done: list[Batch] = []
        await scheduler.run(*(append_all(gateway, own, done) for gateway, own in zip(gateways, batches, strict=True)))

        reflected = check_log(store)
        newcomer = SimulatedGateway(SimulatedBucket(store), 9, directory)
        await newcomer.log.load()
        check_reflected(newcomer.state, done)
        assert newcomer.state.sequence == len(reflected)
        assert set(reflected) <= {(encrypted_name(name), version) for batch in done for name, version in batch.items()}
        for gateway in gateways:
            gateway.bucket = SimulatedBucket(store)
            followed = SimulatedGateway(SimulatedBucket(store), gateways.index(gateway), directory)
            await followed.log.load()
            assert contents(followed.state) == contents(newcomer.state)
            gateway.close()
            followed.close()
        newcomer.close()

    with fast_directory() as directory:
        run_in_virtual_time(play(directory))


@pytest.mark.parametrize(
    "fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.EMPTIED]
)
async def test_a_fault_at_every_call(fault: Fault, tmp_path: Path) -> None:
    """After a crash the gateway begins again with an empty disk; after another fault it goes on."""
    batches = [{0: 1, 1: 1}, {0: 2}, {2: 1, 1: 3}]
    with inline_threads():
        for number in itertools.count(1):
            store = SimulatedStore()
            bucket = SimulatedBucket(store, fault=fail_on({number: fault}))
            done: list[Batch] = []
            starts = itertools.count()

            async def work(bucket: SimulatedBucket, done: list[Batch], directory: Path) -> None:
                gateway = SimulatedGateway(bucket, 1, directory)
                try:
                    await append_all(gateway, batches[:2], done)
                    try:
                        await gateway.log.checkpoint()
                    except StoreError:
                        pass
                    await append_all(gateway, batches[2:], done)
                finally:
                    gateway.close()

            crashed = False
            try:
                await work(bucket, done, tmp_path / f"{number} {next(starts)}")
            except Crash:
                crashed = True
                check_acknowledged = list(done)
                restarted = SimulatedGateway(SimulatedBucket(store), 1, tmp_path / f"{number} restarted")
                await restarted.log.load()
                check_reflected(restarted.state, check_acknowledged)
                restarted.close()
                await work(SimulatedBucket(store), done, tmp_path / f"{number} {next(starts)}")
            reflected = check_log(store)
            assert set(reflected) == {(encrypted_name(n), v) for batch in batches for n, v in batch.items()}
            if len(bucket.calls) < number:
                assert not crashed
                assert number > 8, "every call of the story met the fault once"
                break


@pytest.fixture
def store() -> SimulatedStore:
    return SimulatedStore()


def let_pass(store: SimulatedStore, seconds: float) -> None:
    assert isinstance(store.clock, SimulatedClock)
    store.clock.now += seconds


async def opened(
    store: SimulatedStore, number: int, tmp_path: Path, settings: LogSettings = SETTINGS
) -> SimulatedGateway:
    gateway = SimulatedGateway(SimulatedBucket(store), number, tmp_path, settings=settings)
    await gateway.log.load()
    return gateway


async def test_an_empty_log(store: SimulatedStore, tmp_path: Path) -> None:
    gateway = await opened(store, 1, tmp_path)
    assert (gateway.state.position, gateway.state.sequence) == (0, 0)
    assert not await gateway.log.refresh()


async def test_nothing_to_append_writes_nothing(store: SimulatedStore, tmp_path: Path) -> None:
    gateway = await opened(store, 1, tmp_path)
    await gateway.log.append([])
    await gateway.log.append([entry(file("a", 2))])
    await gateway.log.append([entry(file("a", 2)), entry(file("a", 1))])
    assert gateway.bucket.count("put") == 1


async def test_the_second_writer_drops_what_lost_and_renumbers_the_rest(store: SimulatedStore, tmp_path: Path) -> None:
    first, second = await opened(store, 1, tmp_path), await opened(store, 2, tmp_path)
    await first.log.append([entry(file("a", 3)), entry(file("b", 1))])
    await second.log.append([entry(file("a", 2)), entry(file("b", 2)), entry(file("c", 1))])

    segments = written_segments(store)
    assert [info.file_info.name for info in segments[2].entries] == [encrypted_name("b"), encrypted_name("c")]
    assert segments[2].first_sequence == 3
    assert second.state.position == 2
    assert second.bucket.count("put") == 2
    assert await first.log.refresh()
    assert not await first.log.refresh()
    assert contents(first.state) == contents(second.state)


async def test_a_writer_that_lost_everything_appends_nothing(store: SimulatedStore, tmp_path: Path) -> None:
    first, second = await opened(store, 1, tmp_path), await opened(store, 2, tmp_path)
    await first.log.append([entry(file("a", 3))])
    await second.log.append([entry(file("a", 3))])
    assert list(written_segments(store)) == [1]
    assert contents(first.state) == contents(second.state)


async def test_our_own_segment_is_found_when_its_answer_was_lost(store: SimulatedStore, tmp_path: Path) -> None:
    gateway = await opened(store, 1, tmp_path)
    gateway.bucket.fault = fail_once("put", Fault.ANSWER_LOST)
    with pytest.raises(StoreUnreachable):
        await gateway.log.append([entry(file("a"))])
    assert gateway.state.position == 0
    await gateway.log.append([entry(file("a"))])
    assert list(written_segments(store)) == [1]
    assert (gateway.state.position, gateway.state.sequence) == (1, 1)


async def test_a_conflict_with_nothing_written_is_an_error_to_try_again(store: SimulatedStore, tmp_path: Path) -> None:
    """HTTP 409: the store saw two PUTs at once and took neither, or the other one is not visible yet."""
    gateway = await opened(store, 1, tmp_path)
    gateway.bucket.fault = fail_once("put", Fault.CONFLICT)
    with pytest.raises(PreconditionFailed):
        await gateway.log.append([entry(file("a"))])
    await gateway.log.append([entry(file("a"))])
    assert list(written_segments(store)) == [1]


async def test_unreachable_after_a_lost_race_leaves_the_state_whole(store: SimulatedStore, tmp_path: Path) -> None:
    first, second = await opened(store, 1, tmp_path), await opened(store, 2, tmp_path)
    await first.log.append([entry(file("a"))])
    reads = second.bucket.count("get")
    second.bucket.fault = fail_once("get", Fault.UNREACHABLE)
    with pytest.raises(StoreUnreachable):
        await second.log.append([entry(file("b"))])
    assert second.bucket.count("get") == reads + 1
    assert second.state.position == 0
    await second.log.append([entry(file("b"))])
    assert contents(second.state) == contents((await opened(store, 3, tmp_path)).state)


async def test_cursors_alone_make_a_segment(store: SimulatedStore, tmp_path: Path) -> None:
    gateway = await opened(store, 1, tmp_path)
    await gateway.log.append([], [PeerCursor(device(2), 0xFEDC_BA98_7654_3210, 7)])
    assert gateway.state.sequence == 0
    other = await opened(store, 3, tmp_path)
    assert other.state.cursor(device(2)) == IndexState(0xFEDC_BA98_7654_3210, 7)
    await other.log.append([entry(file("a"))])
    assert written_segments(store)[2].first_sequence == 1


async def test_appends_of_one_gateway_at_once(store: SimulatedStore, tmp_path: Path) -> None:
    gateway = await opened(store, 1, tmp_path)
    await asyncio.gather(*(gateway.log.append([entry(file(number))]) for number in range(5)))
    assert len(check_log(store)) == 5
    assert gateway.bucket.count("put") == 5


async def filled(
    store: SimulatedStore, tmp_path: Path, segments: int, settings: LogSettings = SETTINGS
) -> SimulatedGateway:
    gateway = await opened(store, 1, tmp_path, settings)
    for number in range(segments):
        await gateway.log.append([entry(file(number % 20, number + 1))], [PeerCursor(device(2), 5, number + 1)])
    return gateway


@pytest.mark.parametrize("segments", [1, 15, 16, 17, 32, 40])
async def test_read_ahead_crosses_the_end(segments: int, store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, segments)
    reader = await opened(store, 2, tmp_path)
    assert contents(reader.state) == contents(writer.state)
    assert reader.bucket.count("get") == (segments // SETTINGS.read_ahead + 1) * SETTINGS.read_ahead
    reads = reader.bucket.count("get")
    await writer.log.append([entry(file("more"))])
    await reader.log.refresh()
    assert reader.bucket.count("get") == reads + 2, "one segment and the end"


async def test_what_the_log_has_said_of_an_object(store: SimulatedStore, tmp_path: Path) -> None:
    """It is read backwards, as far as the caller wants, and not beyond a gap."""
    gateway = await opened(store, 1, tmp_path)
    infos = [file("a", version, content=version) for version in range(1, 31)]
    for info in infos:
        await gateway.log.append([entry(info)])
    stored = entry(infos[2]).stored
    assert stored is not None
    key, earlier = name_key(infos[0].name), gateway.log.earlier_object
    assert await earlier(key, stored.object_name, 10**6) == stored
    assert await earlier(name_key(encrypted_name("b")), stored.object_name, 10**6) is None
    assert await earlier(key, "another", 10**6) is None
    before = len(gateway.bucket.calls)
    assert await earlier(key, stored.object_name, 1000) is None
    assert len(gateway.bucket.calls) < before + 15
    del store.objects[KEYS.segment(20)]
    assert await earlier(key, stored.object_name, 10**6) is None
    gateway.close()


@pytest.mark.parametrize("at", [1, 2, 29, 30])
async def test_a_checkpoint_and_the_segments_after_it_equal_all_segments(
    at: int, store: SimulatedStore, tmp_path: Path
) -> None:
    writer = await filled(store, tmp_path, at)
    plain = contents(writer.state)
    await writer.log.checkpoint()
    assert store.keys(KEYS.checkpoints) == [KEYS.checkpoint(at)]
    for number in range(at, 30):
        await writer.log.append([entry(file(number % 20, number + 1))], [PeerCursor(device(2), 5, number + 1)])
    for position in range(1, at + 1):
        del store.objects[KEYS.segment(position)]

    reader = await opened(store, 2, tmp_path)
    assert contents(reader.state) == contents(writer.state)
    assert (contents(reader.state) == plain) == (at == 30)


async def test_the_newest_checkpoint_is_loaded(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 3)
    await writer.log.checkpoint()
    await writer.log.append([entry(file("more"))])
    await writer.log.checkpoint()
    store.put(KEYS.checkpoints + "99", b"no position")
    store.objects = {key: value for key, value in store.objects.items() if "/log/" not in key}
    assert contents((await opened(store, 2, tmp_path)).state) == contents(writer.state)


async def test_a_state_that_is_ahead_of_the_checkpoint_stays(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 2)
    await writer.log.checkpoint()
    await writer.log.append([entry(file("more"))])
    writer.close()
    restarted = await opened(store, 1, tmp_path)
    assert restarted.bucket.count("download_file") == 0
    assert restarted.state.position == 3


async def test_a_damaged_segment_is_named(store: SimulatedStore, tmp_path: Path) -> None:
    await filled(store, tmp_path, 3)
    body = bytearray(store.body(KEYS.segment(2)))
    body[30] ^= 1
    store.put(KEYS.segment(2), bytes(body))
    reader = SimulatedGateway(SimulatedBucket(store), 2, tmp_path)
    with pytest.raises(DataError, match=KEYS.segment(2)):
        await reader.log.load()
    assert reader.state.position == 1, "what comes before it is applied"


async def test_a_segment_at_the_wrong_position_is_refused(store: SimulatedStore, tmp_path: Path) -> None:
    await filled(store, tmp_path, 3)
    store.objects[KEYS.segment(2)] = store.objects[KEYS.segment(3)]
    reader = SimulatedGateway(SimulatedBucket(store), 2, tmp_path)
    with pytest.raises(DataError, match="segment 2"):
        await reader.log.load()
    assert reader.state.position == 1


async def checkpoints_at(store: SimulatedStore, tmp_path: Path, *positions: int) -> SimulatedGateway:
    """A gateway that has written five segments and these checkpoints."""
    writer = await opened(store, 1, tmp_path)
    for number in range(1, 6):
        await writer.log.append([entry(file(number))])
        if number in positions:
            await writer.log.checkpoint()
    return writer


@pytest.mark.parametrize("damage", [b"", b"x" * 10_000])
@pytest.mark.parametrize("gone", [(), (1, 2)])
async def test_for_a_damaged_checkpoint_an_older_one_serves(
    damage: bytes, gone: tuple[int, ...], store: SimulatedStore, tmp_path: Path
) -> None:
    writer = await checkpoints_at(store, tmp_path, 2, 4)
    store.put(KEYS.checkpoint(4), damage)
    for position in gone:
        del store.objects[KEYS.segment(position)]
    reader = await opened(store, 3, tmp_path)
    assert contents(reader.state) == contents(writer.state)
    await reader.log.append([entry(file("more"))])
    assert reader.state.position == 6


async def test_without_its_segments_no_older_checkpoint_serves(store: SimulatedStore, tmp_path: Path) -> None:
    """A deleted segment is not the end of the log, and its position is never written again."""
    await checkpoints_at(store, tmp_path, 2, 4)
    store.put(KEYS.checkpoint(4), b"damaged")
    for position in (1, 2, 3, 4):
        del store.objects[KEYS.segment(position)]
    reader = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    for _ in range(2):
        with pytest.raises(DataError, match=f"{KEYS.checkpoint(4)} .*{KEYS.segment(3)} "):
            await reader.log.load()
        with pytest.raises(DataError, match=KEYS.checkpoint(4)):
            await reader.log.append([entry(file("more"))])
    assert reader.state.position == 2, "the older one is loaded"
    assert reader.bucket.count("put") == 0
    assert reader.bucket.count("download_file") == 2, "a damaged checkpoint is not fetched again and again"


async def test_a_damaged_checkpoint_leaves_the_state_that_there_is(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 3)
    follower = await opened(store, 2, tmp_path)
    before = contents(follower.state)
    await writer.log.append([entry(file("more"))])
    await writer.log.checkpoint()
    store.put(KEYS.checkpoint(4), b"damaged")
    del store.objects[KEYS.segment(4)]
    let_pass(store, SEGMENT_RETENTION)
    with pytest.raises(DataError, match=KEYS.checkpoint(4)):
        await follower.log.refresh()
    assert contents(follower.state) == before


async def test_a_checkpoint_that_a_trim_deletes_before_it_is_read(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await checkpoints_at(store, tmp_path, 2, 4)
    for position in (1, 2, 3, 4):
        del store.objects[KEYS.segment(position)]
    reader = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    seen: list[str] = []

    async def gate(call: Call, phase: Phase) -> None:
        if call.operation == "download_file" and phase is Phase.REQUEST and not seen:
            await writer.log.checkpoint()
            seen.extend(store.keys(KEYS.checkpoints))
            del store.objects[KEYS.checkpoint(4)]

    reader.bucket.gate = gate
    await reader.log.load()
    assert len(seen) == 3
    assert contents(reader.state) == contents(writer.state)


async def test_a_checkpoint_of_another_position_is_refused(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 3)
    await writer.log.checkpoint()
    store.objects[KEYS.checkpoint(5)] = store.objects[KEYS.checkpoint(3)]
    with pytest.raises(DataError, match=KEYS.checkpoint(5)):
        await opened(store, 2, tmp_path)


async def test_another_gateways_checkpoint_makes_ours_needless(store: SimulatedStore, tmp_path: Path) -> None:
    first = await filled(store, tmp_path, 4, THREE_SEGMENTS)
    second = await opened(store, 2, tmp_path, THREE_SEGMENTS)
    assert [gateway.log.checkpoint_due for gateway in (first, second)] == [True, True]
    assert [await gateway.log.checkpoint_where_due() for gateway in (first, second)] == [True, False]
    assert [gateway.log.checkpoint_due for gateway in (first, second)] == [False, False]
    assert store.keys(KEYS.checkpoints) == [KEYS.checkpoint(4)]


async def test_the_larger_the_state_the_rarer_its_checkpoints(store: SimulatedStore, tmp_path: Path) -> None:
    size = (await filled(SimulatedStore(), tmp_path / "as large", 4)).state.file_size
    share = 4.5 * SETTINGS.segment_cost / size
    writer = await filled(
        store, tmp_path, 4, LogSettings(checkpoint_cost=3 * SETTINGS.segment_cost, checkpoint_share=share)
    )
    assert writer.state.file_size == size
    due = [writer.log.checkpoint_due]
    await writer.log.append([entry(file("more"))])
    assert [*due, writer.log.checkpoint_due] == [False, True]


async def test_the_state_can_be_read_while_a_checkpoint_is_fetched(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 2)
    reader = await opened(store, 2, tmp_path)
    await writer.log.append([entry(file("more"))])
    await writer.log.checkpoint()
    let_pass(store, SEGMENT_RETENTION)

    seen: list[tuple[int, bool]] = []

    async def gate(call: Call, phase: object) -> None:
        if call.operation == "download_file":
            seen.append((reader.state.position, reader.state.entry(encrypted_name(0)) is not None))
        await asyncio.sleep(0)

    reader.bucket.gate = gate
    await reader.log.refresh()
    assert seen == [(2, True), (2, True)]
    assert contents(reader.state) == contents(writer.state)


async def test_when_a_checkpoint_is_due(store: SimulatedStore, tmp_path: Path) -> None:
    writer = await filled(store, tmp_path, 2, THREE_SEGMENTS)
    due = [writer.log.checkpoint_due]
    await writer.log.append([entry(file("more"))])
    due.append(writer.log.checkpoint_due)
    reader = await opened(store, 2, tmp_path, THREE_SEGMENTS)
    due.append(reader.log.checkpoint_due)
    await writer.log.checkpoint()
    due.append(writer.log.checkpoint_due)
    assert due == [False, True, True, False]


async def test_large_segments_make_a_checkpoint_due_sooner(store: SimulatedStore, tmp_path: Path) -> None:
    by_bytes_alone = LogSettings(segment_cost=0, checkpoint_cost=10, checkpoint_share=0)
    writer = await filled(store, tmp_path, 1, by_bytes_alone)
    due = [writer.log.checkpoint_due]  # one segment alone is never worth a checkpoint
    await writer.log.append([entry(file("more"))])
    due.append(writer.log.checkpoint_due)
    assert due == [False, True]
