"""What a trim deletes and keeps, and that checkpoints and log stay bounded however long changes go on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import entry, file
from tests.index.gateways import KEYS, SEGMENTS, SimulatedGateway, checkpoint_body, contents
from tests.loops import one_loop
from tests.simulated import (
    Fault,
    SimulatedBucket,
    SimulatedClock,
    SimulatedStore,
    fail_once,
    fast_directory,
    inline_threads,
)
from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.index.trimming import Trimmed, find_base, surplus_checkpoints, trim
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.format import TRIM_LIFETIME
from untrusted_s3.units import DAY

HISTORY = 30 * DAY
SETTINGS = LogSettings()


def positions(store: SimulatedStore, prefix: str) -> list[int]:
    return [int(key.rpartition("/")[2]) for key in store.keys(prefix)]


def filled(segments: int, checkpoints: dict[int, float]) -> SimulatedStore:
    """A store with segments from 1 on, and checkpoints of these ages in days."""
    store = SimulatedStore()
    for position in range(1, segments + 1):
        store.put(KEYS.segment(position), b"")
    for position, days in checkpoints.items():
        store.put(KEYS.checkpoint(position), checkpoint_body(position), begun=store.clock() - days * DAY)
    return store


@pytest.mark.parametrize(
    ("ages", "base", "surplus"),
    [
        ({}, 0, []),
        ({5: 0}, 0, []),
        ({5: 1000}, 5, []),
        ({3: 1001, 5: 1000}, 5, [3]),
        ({3: 40, 5: 31, 8: 29}, 5, [3]),
        ({3: 30, 5: 29}, 0, []),
        ({1: 0.9, 2: 0.8, 3: 0.7, 4: 0.6, 5: 0.5}, 0, [2, 3]),
        ({1: 7, 2: 6, 3: 5, 4: 3, 5: 2.5, 6: 1.5, 7: 1.2, 8: 0.4, 9: 0.3, 10: 0.2, 11: 0.1}, 0, [2, 3, 5, 7, 9]),
        ({1: 7, 2: 6.5, 3: 6}, 0, []),  # the newest two stay whatever their age
        ({1: 60, 2: 50, 3: 29, 4: 28, 5: 27, 6: 26}, 2, [1, 4]),
        ({1: -1, 2: -1, 3: -1, 4: -1}, 0, [2]),  # clocks of stores are not exact
    ],
)
def test_which_checkpoints_stay(ages: dict[int, float], base: int, surplus: list[int]) -> None:
    seconds = {position: age * DAY for position, age in ages.items()}
    assert find_base(seconds, HISTORY) == base
    assert surplus_checkpoints(seconds, base) == surplus


@given(st.lists(st.floats(0, 400), max_size=60))
def test_few_stay_and_never_the_newest_goes(days: list[float]) -> None:
    ages = {position: age * DAY for position, age in enumerate(sorted(days, reverse=True), 1)}
    base = find_base(ages, HISTORY)
    kept = ages.keys() - surplus_checkpoints(ages, base)
    assert len(kept) <= 1 + 6 + 2, "the base, buckets up to 16-32 days, and two"
    assert not ages or max(ages) in kept
    assert not base or base in kept
    assert all(position >= base for position in kept)


@pytest.mark.parametrize("body", [b"", b"damaged", checkpoint_body(5)[:-1], checkpoint_body(2)])
async def test_a_damaged_checkpoint_is_no_base(body: bytes) -> None:
    """Else nothing would be left that says what was in the segments before it."""
    store = filled(8, {2: 50, 5: 40, 7: 10})
    store.put(KEYS.checkpoint(5), body, begun=store.clock() - 40 * DAY)
    assert await trim(SimulatedBucket(store), KEYS, HISTORY) == Trimmed(segments=2)
    assert positions(store, KEYS.checkpoints) == [2, 5, 7]
    assert positions(store, SEGMENTS) == [3, 4, 5, 6, 7, 8]
    store.put(KEYS.checkpoint(2), b"damaged too", begun=store.clock() - 50 * DAY)
    assert await trim(SimulatedBucket(store), KEYS, HISTORY) == Trimmed()


async def test_a_base_is_read_once() -> None:
    bucket = SimulatedBucket(filled(8, {5: 40, 7: 10}))
    for _ in range(3):
        await trim(bucket, KEYS, HISTORY)
    assert bucket.count("download_file") == 1


async def test_segments_up_to_the_base_go() -> None:
    store = filled(9, {2: 50, 5: 31, 8: 1})
    bucket = SimulatedBucket(store)
    assert await trim(bucket, KEYS, HISTORY) == Trimmed(checkpoints=1, segments=5)
    assert positions(store, SEGMENTS) == [6, 7, 8, 9]
    assert positions(store, KEYS.checkpoints) == [5, 8]
    assert await trim(bucket, KEYS, HISTORY) == Trimmed()


async def test_without_a_base_all_segments_stay() -> None:
    store = filled(9, {5: 29, 8: 1})
    assert await trim(SimulatedBucket(store), KEYS, HISTORY) == Trimmed()
    assert positions(store, SEGMENTS) == list(range(1, 10))


async def test_no_history_is_shorter_than_what_readers_rely_on() -> None:
    store = filled(9, {3: 1.1, 5: 0.9})
    assert await trim(SimulatedBucket(store), KEYS, 0.0) == Trimmed(segments=3)


async def test_what_is_not_ours_stays() -> None:
    store = filled(3, {3: 50})
    others = [SEGMENTS + "1", KEYS.checkpoints + "00000000000000000001.old", KEYS.base + "logs/00000000000000000001"]
    for key in others:
        store.put(key, b"", begun=0.0)
    await trim(SimulatedBucket(store), KEYS, HISTORY)
    assert set(others) <= store.objects.keys()


@pytest.mark.parametrize("number", range(1, 45))
async def test_an_interrupted_trim_leaves_what_the_next_one_finishes(number: int) -> None:
    store = filled(50, {10: 60, 20: 50, 40: 40})
    bucket = SimulatedBucket(store, fault=fail_once("delete", Fault.UNREACHABLE, number=number))
    if number <= 42:
        with pytest.raises(StoreUnreachable):
            await trim(bucket, KEYS, HISTORY)
        rest = positions(store, SEGMENTS)
        assert rest[SETTINGS.concurrent_deletions :] == list(
            range(rest[-1] + SETTINGS.concurrent_deletions + 1 - len(rest), 51)
        )
    await trim(bucket, KEYS, HISTORY)
    assert positions(store, SEGMENTS) == list(range(41, 51))
    assert positions(store, KEYS.checkpoints) == [40]


async def test_a_trim_that_stalled_deletes_no_more_checkpoints() -> None:
    """What it would thin out may be another one's base by now."""
    store = filled(9, {1: 25, 5: 24, 8: 2, 9: 1})
    readings = itertools.chain([0.0], itertools.repeat(TRIM_LIFETIME + 1))
    assert await trim(SimulatedBucket(store), KEYS, HISTORY, clock=lambda: next(readings)) == Trimmed()
    assert positions(store, KEYS.checkpoints) == [1, 5, 8, 9]
    assert await trim(SimulatedBucket(store), KEYS, HISTORY) == Trimmed(checkpoints=1)
    assert positions(store, KEYS.checkpoints) == [1, 8, 9]


@one_loop
async def test_bounded_through_two_hundred_days_of_changes() -> None:
    """Twelve changes a day to twenty files, a checkpoint every five segments, two gateways that both trim."""
    settings = LogSettings(checkpoint_cost=5 * SETTINGS.segment_cost)
    clock = SimulatedClock()
    store = SimulatedStore(clock)
    sizes: list[tuple[int, int, int]] = []
    with inline_threads(), fast_directory() as directory:
        buckets = [SimulatedBucket(store), SimulatedBucket(store)]
        gateways = [SimulatedGateway(bucket, n, directory, settings=settings) for n, bucket in enumerate(buckets)]
        for day in range(200):
            for change in range(12):
                clock.now += DAY / 12
                gateway = gateways[change % 2]
                await gateway.log.append([entry(file(change % 20, 12 * day + change + 1))])
                if gateway.log.checkpoint_due:
                    await gateway.log.checkpoint_where_due()
            for gateway in gateways:
                await trim(gateway.bucket, KEYS, HISTORY)
            segments, checkpoints = positions(store, SEGMENTS), positions(store, KEYS.checkpoints)
            sizes.append((len(segments), len(checkpoints), sum(len(one.body) for one in store.objects.values())))
            if day > 60:
                base = checkpoints[0]
                assert store.age(KEYS.checkpoint(base)) > HISTORY
                assert segments == list(range(base + 1, gateway.state.position + 1)), "the history since is whole"
        newcomer = SimulatedGateway(SimulatedBucket(store), 9, directory)
        await newcomer.log.load()
        assert newcomer.state.sequence == 200 * 12
        assert newcomer.bucket.count("get") <= 2 * SETTINGS.read_ahead
        await gateways[0].log.refresh()
        assert contents(newcomer.state) == contents(gateways[0].state)
        for gateway in (*gateways, newcomer):
            gateway.close()
    earlier = [max(size[kind] for size in sizes[60:130]) for kind in range(3)]
    later = [max(size[kind] for size in sizes[130:]) for kind in range(3)]
    assert all(late <= 1.1 * early for early, late in zip(earlier, later, strict=True)), (earlier, later)
    assert later[0] <= 12 * 48
    assert later[1] <= 9
