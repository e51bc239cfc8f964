"""A store that loses the end of a log: nothing is written after a gap, and no reader takes a gap for the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, entry, file
from tests.index.gateways import KEYS, SETTINGS, SimulatedGateway, contents
from tests.simulated import (
    Fault,
    SimulatedBucket,
    SimulatedClock,
    SimulatedStore,
    fail_once,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import DataError, LogWentBack, SegmentsMissing, StoreUnreachable
from untrusted_s3.index.entry import PeerCursor
from untrusted_s3.index.history import load_as_of
from untrusted_s3.index.log_check import check_log
from untrusted_s3.index.log_end import missing_between
from untrusted_s3.index.state import FolderState


async def opened(store: SimulatedStore, number: int, directory: Path) -> SimulatedGateway:
    gateway = SimulatedGateway(SimulatedBucket(store), number, directory)
    await gateway.log.load()
    return gateway


async def filled(store: SimulatedStore, directory: Path, segments: int) -> SimulatedGateway:
    gateway = await opened(store, 1, directory)
    for number in range(segments):
        await gateway.log.append([entry(file(number, number + 1))])
    return gateway


def lose(store: SimulatedStore, *positions: int) -> None:
    for position in positions:
        del store.objects[KEYS.segment(position)]


async def test_after_a_restart_nothing_is_written_behind_a_gap(tmp_path: Path) -> None:
    store = SimulatedStore()
    (await filled(store, tmp_path, 6)).close()
    lose(store, 2, 3, 4, 5, 6)
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path)
    for _ in range(2):
        with pytest.raises(LogWentBack, match=f"{KEYS.segment(6)}.* is gone"):
            await gateway.log.load()
        with pytest.raises(LogWentBack):
            await gateway.log.append([entry(file("more"))])
        with pytest.raises(LogWentBack):
            await gateway.log.refresh()
    assert gateway.state.position == 6, "what is known stays"
    assert gateway.bucket.count("put") == 0
    gateway.close()


async def test_while_running_after_the_store_was_away(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await filled(store, tmp_path, 3)
    gateway.bucket.fault = fail_once("get", Fault.UNREACHABLE)
    with pytest.raises(StoreUnreachable):
        await gateway.log.refresh()
    lose(store, 3)
    puts = gateway.bucket.count("put")
    for _ in range(2):
        with pytest.raises(LogWentBack):
            await gateway.log.append([entry(file("more"))])
    assert gateway.bucket.count("put") == puts


async def test_who_has_not_looked_for_a_minute_makes_sure_before_writing(tmp_path: Path) -> None:
    """The store was put back while nobody asked it for anything."""
    store = SimulatedStore()
    gateway = await filled(store, tmp_path, 3)
    assert isinstance(store.clock, SimulatedClock)
    puts = gateway.bucket.count("put")
    store.clock.now += SETTINGS.trusted_look + 1
    lose(store, 3)
    with pytest.raises(LogWentBack):
        await gateway.log.append([entry(file("more"))])
    assert gateway.bucket.count("put") == puts


async def test_the_last_segment_alone_can_be_checked(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await filled(store, tmp_path, 3)
    before = len(gateway.bucket.calls)
    assert not await gateway.log.check_last()
    assert [(call.operation, call.key) for call in gateway.bucket.calls[before:]] == [("get", KEYS.segment(3))]
    lose(store, 3)
    with pytest.raises(LogWentBack):
        await gateway.log.check_last()
    gateway.close()


async def test_it_goes_on_when_the_segments_are_back(tmp_path: Path) -> None:
    store = SimulatedStore()
    (await filled(store, tmp_path, 3)).close()
    body = store.body(KEYS.segment(3))
    lose(store, 3)
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path)
    with pytest.raises(LogWentBack):
        await gateway.log.load()
    store.put(KEYS.segment(3), body)
    await gateway.log.append([entry(file("more"))])
    assert gateway.state.position == 4


async def test_another_history_after_the_store_went_back(tmp_path: Path) -> None:
    store = SimulatedStore()
    (await filled(store, tmp_path, 3)).close()
    lose(store, 2, 3)
    assert isinstance(store.clock, SimulatedClock)
    store.clock.now += 1000
    other = await opened(store, 2, tmp_path)
    for number in range(4):
        await other.log.append([entry(file(f"other {number}"))])
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path)
    with pytest.raises(LogWentBack, match="another one"):
        await gateway.log.load()
    assert gateway.state.position == 3
    gateway.close()


async def test_a_checkpoint_covers_a_trimmed_last_segment(tmp_path: Path) -> None:
    store = SimulatedStore()
    writer = await filled(store, tmp_path, 3)
    await writer.log.checkpoint()
    writer.close()
    lose(store, 1, 2, 3)
    gateway = await opened(store, 1, tmp_path)
    await gateway.log.append([entry(file("more"))])
    assert gateway.state.position == 4


async def test_a_damaged_last_segment_that_a_checkpoint_covers(tmp_path: Path) -> None:
    store = SimulatedStore()
    writer = await filled(store, tmp_path, 3)
    writer.close()
    store.put(KEYS.segment(3), b"damaged")
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path)
    with pytest.raises(DataError, match=KEYS.segment(3)):
        await gateway.log.load()
    await gateway.log.checkpoint()
    await gateway.log.load()
    gateway.close()


@pytest.mark.parametrize("gone", [(1,), (2,), (2, 3), (1, 2, 3, 4), (3, 5)])
async def test_a_reader_names_the_missing_segments(gone: tuple[int, ...], tmp_path: Path) -> None:
    store = SimulatedStore()
    await filled(store, tmp_path, 6)
    lose(store, *gone)
    named = {(1,): "1", (2,): "2", (2, 3): "2 to 3", (1, 2, 3, 4): "1 to 4", (3, 5): "3, 5"}[gone]
    reader = SimulatedGateway(SimulatedBucket(store), 3, tmp_path)
    for _ in range(2):
        with pytest.raises(SegmentsMissing, match=f"no segment {named}, though it goes on to 6"):
            await reader.log.load()
        with pytest.raises(SegmentsMissing):
            await reader.log.append([entry(file("more"))])
    assert reader.state.position == gone[0] - 1
    assert reader.bucket.count("put") == 0
    as_of = FolderState(tmp_path / "as of.sqlite")
    if gone[0] > 1:
        with pytest.raises(SegmentsMissing, match=f"no segment {named},"):
            await load_as_of(SimulatedBucket(store), KEYS, as_of, 10**13)
    reader.close()
    as_of.close()


async def test_an_ordinary_append_and_look_cost_one_request(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await filled(store, tmp_path, 2)
    calls = len(gateway.bucket.calls)
    await gateway.log.append([entry(file("more"))])
    await gateway.log.append([], [PeerCursor(device(2), 1, 1)])
    await gateway.log.refresh()
    assert [call.operation for call in gateway.bucket.calls[calls:]] == ["put", "put", "get"]


async def test_a_start_costs_two_requests_more(tmp_path: Path) -> None:
    store = SimulatedStore()
    (await filled(store, tmp_path, 2)).close()
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path)
    await gateway.log.load()
    operations = [call.operation for call in gateway.bucket.calls]
    assert operations.count("list") == 2, "checkpoints, and what follows the end"
    assert operations.count("get") == 1 + SETTINGS.read_ahead, "the last segment, and as many as are read at once"
    gateway.close()


async def test_segments_that_are_written_while_the_end_is_looked_at(tmp_path: Path) -> None:
    store = SimulatedStore()
    writer = await filled(store, tmp_path, 2)
    written = 0

    async def gate(call: object, phase: object) -> None:
        nonlocal written
        if getattr(call, "operation", "") == "list" and "/log/" in getattr(call, "key", "") and written < 3:
            written += 1
            await writer.log.append([entry(file(f"more {written}"))])

    reader = SimulatedGateway(SimulatedBucket(store, gate=gate), 2, tmp_path)
    await reader.log.load()
    assert written == 3
    assert contents(reader.state) == contents(writer.state)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.sets(st.integers(1, 8)), st.sampled_from([0, 2, 5]), st.booleans())
def test_whatever_is_lost_no_log_gets_a_gap(length: int, gone: set[int], checkpoint: int, restarted: bool) -> None:
    """After any loss, a gateway writes only where its readers and it agree about all that came before."""

    async def play(directory: Path) -> None:
        store = SimulatedStore()
        gateway = await opened(store, 1, directory)
        for number in range(1, length + 1):
            await gateway.log.append([entry(file(number))])
            if number == checkpoint:
                await gateway.log.checkpoint()
        for position in gone & set(range(1, length + 1)):
            lose(store, position)
        if restarted:
            gateway.close()
            gateway = SimulatedGateway(SimulatedBucket(store), 1, directory)
        else:
            gateway.bucket.fault = fail_once("get", Fault.UNREACHABLE)
            with pytest.raises(StoreUnreachable):
                await gateway.log.refresh()
        covered = checkpoint if checkpoint <= length else 0
        lost_end = length in gone and length > covered
        try:
            await gateway.log.append([entry(file("more"))])
        except LogWentBack:
            assert lost_end
            assert KEYS.segment(length + 1) not in store.objects
        else:
            assert not lost_end
        gateway.close()
        reader = SimulatedGateway(SimulatedBucket(store), 2, directory)
        lost = [position for position in gone if covered < position <= length]
        try:
            await reader.log.load()
        except SegmentsMissing:
            assert lost
        else:
            left = [int(key[-20:]) for key in store.keys(KEYS.segments)]
            assert reader.state.position == max([covered, *left], default=0)
        reader.close()

    with fast_directory() as directory, inline_threads():
        run_in_virtual_time(play(directory))


HIGHEST = 2**62


@pytest.mark.parametrize("strange", [HIGHEST, HIGHEST + 1, 10**20 - 1])
async def test_a_key_at_a_position_that_no_log_reaches_costs_nothing(strange: int, tmp_path: Path) -> None:
    """Anybody who can write to the bucket can make one."""
    store = SimulatedStore()
    gateway = await filled(store, tmp_path, 2)
    store.put(KEYS.segment(strange), b"anything")
    if strange > HIGHEST:
        assert await gateway.log.check(whole=True) is False
        return
    with pytest.raises(SegmentsMissing, match=f"3 to {strange - 1}, though it goes on to {strange}"):
        await gateway.log.check()
    found = [(problem.path, problem.reason) async for problem in check_log(gateway.bucket, KEYS)]
    assert found == [(KEYS.segment(strange), "it is at a position that no log reaches")]
    salvaged = await gateway.log.salvage()
    assert salvaged.losses == ()
    assert salvaged.kept == {KEYS.segment(strange): KEYS.damaged_segment(strange, b"anything")}
    assert gateway.state.position == 2


async def test_a_state_at_a_position_that_no_log_reaches_costs_nothing(tmp_path: Path) -> None:
    gateway = await filled(SimulatedStore(), tmp_path, 2)
    gateway.state.skip(HIGHEST)
    assert await missing_between(gateway.bucket, KEYS, 1, HIGHEST) == [range(3, HIGHEST + 1)]
