"""The limit of requests under way: it finds what a store can do, near or far, and heeds what it says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_time import run_in_virtual_time, settled, virtual_time
from untrusted_s3.store.adaptive_limit import AdaptiveLimit, limit_of_request

LEAST, MOST = 16, 128


class FarStore:
    """A store `round_trip` seconds away, which works on `workers` requests at once, each for `work` seconds.

    Attributes:
        done: How many requests it has answered, by owner.
        most: How many were under way at once at most.
        refuses: Returns whether it refuses a request, by how many are under way.
        pause: What it then says of when to come back.
    """

    def __init__(self, round_trip: float, work: float, workers: int = 1) -> None:
        self.round_trip = round_trip
        self.work = work
        self.done: Counter[str] = Counter()
        self.most = 0
        self.refuses: Callable[[int], bool] = lambda under_way: False
        self.pause = 0.0
        self._workers = asyncio.Semaphore(workers)
        self._under_way = 0

    async def ask(self, limit: AdaptiveLimit, owner: str = "a", size: int = 4096) -> None:
        """Send a request within the limit, again while it is refused."""
        async with limit.of(owner):
            assert limit_of_request() is limit
            delay = 0.1
            while not await self._answers(limit, size):
                await asyncio.sleep(max(self.pause, delay))
                delay *= 2
        assert limit_of_request() is None
        self.done[owner] += 1

    async def _answers(self, limit: AdaptiveLimit, size: int) -> bool:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        began = asyncio.get_running_loop().time()
        refuses = self.refuses(self._under_way)
        await asyncio.sleep(self.round_trip)
        if not refuses:
            async with self._workers:
                await asyncio.sleep(self.work)
        self._under_way -= 1
        if refuses:
            limit.refused(began, self.pause)
        else:
            limit.answered(size, began)
        return not refuses


async def flood(limit: AdaptiveLimit, store: FarStore, requests: int, owner: str = "a") -> float:
    """Send as many requests as the limit lets through; return how many were answered a second."""
    began = asyncio.get_running_loop().time()
    numbers = iter(range(requests))

    async def ask() -> None:
        for _ in numbers:
            await store.ask(limit, owner)

    async with asyncio.TaskGroup() as group:
        for _ in range(2 * MOST):
            group.create_task(ask())
    return requests / (asyncio.get_running_loop().time() - began)


@virtual_time
@pytest.mark.parametrize("round_trip", [0.02, 0.04, 0.1])
async def test_a_far_store_gets_more_at_once(round_trip: float) -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(round_trip, 0.0005)
    rate = await flood(limit, store, 2000)
    fixed = LEAST / (round_trip + 0.0005)
    assert rate > min(3 * fixed, 0.75 * 2000)
    assert LEAST < store.most <= MOST


@virtual_time
async def test_a_near_store_that_is_busy_gets_no_more() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.0002, 0.001, workers=2)
    rate = await flood(limit, store, 3000)
    assert store.most <= LEAST + LEAST // 2 and limit.limit <= LEAST + LEAST // 2
    assert rate > 1900


@virtual_time
async def test_more_that_brings_nothing_is_given_up() -> None:
    """The store takes 400 requests a second, however many come: 25 of them are under way on a line of 60 ms."""
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.06, 0.0025)
    assert await flood(limit, store, 2000) > 330
    assert limit.limit < 75
    store.work = 0.02  # it has become slower
    await flood(limit, store, 500)
    assert limit.limit < 35


@virtual_time
async def test_a_store_that_moves_away_is_learned_again() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.1, 0.001)
    await flood(limit, store, 1000)
    assert limit.limit > 60
    store.round_trip = 1.0
    await flood(limit, store, 500)
    assert limit.limit == LEAST, "so far it looks like a loaded store"
    await flood(limit, store, 3000)
    assert limit.limit > 60


@virtual_time
async def test_under_steady_load_the_time_of_a_loaded_store_does_not_become_the_measure() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.4, 0.05)
    for _ in range(5):
        assert await flood(limit, store, 20 * 60) > 18, "a minute"
        assert limit.limit < 60


@virtual_time
async def test_what_little_is_asked_says_nothing_of_the_limit() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.04, 0.0)
    for _ in range(300):
        await store.ask(limit)
    assert limit.limit == LEAST


@virtual_time
async def test_sizes_are_measured_apart() -> None:
    """Large objects take longer by themselves, which is no reason to have fewer at once."""
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.04, 0.0)

    async def ask(number: int) -> None:
        large = number % 2
        async with limit.of("a"):
            began = asyncio.get_running_loop().time()
            await asyncio.sleep(store.round_trip + large * 0.4)
            limit.answered(8 << 20 if large else 100, began)

    async with asyncio.TaskGroup() as group:
        for number in range(2000):
            group.create_task(ask(number))
    assert limit.limit > 4 * LEAST


@virtual_time
async def test_slow_down_is_heeded() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.04, 0.0001)
    store.refuses = lambda under_way: under_way > 40
    rate = await flood(limit, store, 4000)
    assert limit.backed_off and limit.limit <= 60
    assert rate > 300
    before = limit.backed_off
    store.refuses = lambda under_way: True
    store.pause = 1.0
    work = asyncio.ensure_future(flood(limit, store, 100))
    await asyncio.sleep(20)
    assert limit.limit == 1 and limit.backed_off > before, "below the least"
    store.refuses, store.pause = lambda under_way: False, 0.0
    await work
    await flood(limit, store, 500)
    assert limit.limit >= LEAST, "and it comes back"


@virtual_time
async def test_a_storm_of_refusals_cuts_the_limit_once() -> None:
    limit = AdaptiveLimit(LEAST, MOST)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(0.04)
    for _ in range(LEAST):
        limit.refused(began)
    assert (limit.limit, limit.backed_off) == (LEAST // 2, 1)


@virtual_time
async def test_nothing_begins_in_the_pause_that_the_store_wants() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.04, 0.0)
    now = asyncio.get_running_loop().time
    limit.refused(now(), pause=5.0)
    began = now()
    work = asyncio.ensure_future(flood(limit, store, 10))
    await settled()
    assert limit.in_flight == 0
    await work
    assert 5.0 <= now() - began < 5.5
    limit.refused(now(), pause=1e6)
    began = now()
    await flood(limit, store, 1)
    assert now() - began < 60, "no store stops all for hours"


@virtual_time
async def test_one_slow_part_of_the_store_does_not_stop_the_rest() -> None:
    limit, store = AdaptiveLimit(LEAST, MOST), FarStore(0.04, 0.0001)

    async def ask_slow_part() -> None:
        async with limit.of("slow"):
            await asyncio.sleep(3.0)

    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(ask_slow_part())
        rate = await flood(limit, store, 1000, "fast")
    assert rate > 200, "half of the least, at 40 ms"


@virtual_time
async def test_folders_get_equal_parts() -> None:
    limit, store = AdaptiveLimit(LEAST, LEAST), FarStore(0.04, 0.0)
    busy = asyncio.ensure_future(flood(limit, store, 3000, "busy"))
    await asyncio.sleep(1)
    before = store.done["busy"]
    began = asyncio.get_running_loop().time()
    await store.ask(limit, "lone")
    assert asyncio.get_running_loop().time() - began < 0.1, "a lone file waits for one place, not for 2,600 files"
    await flood(limit, store, 400, "second")
    assert 300 < store.done["busy"] - before < 550
    await busy


@virtual_time
async def test_who_gives_up_takes_no_place() -> None:
    limit, store = AdaptiveLimit(1, 1), FarStore(1.0, 0.0)
    first, second, third = (asyncio.ensure_future(store.ask(limit, owner)) for owner in "abc")
    await settled()
    second.cancel()
    await settled()
    assert limit.in_flight == 1
    await asyncio.wait([first])
    third.cancel()  # it has been granted a place, and has not run since
    await settled()
    assert limit.in_flight == 0 and limit.has_room
    await store.ask(limit)


@settings(deadline=None, max_examples=40)
@given(
    actions=st.lists(
        st.tuples(st.sampled_from(["ask", "cancel", "wait", "refuse", "pause"]), st.integers(0, 3), st.floats(0, 2)),
        max_size=40,
    ),
    least=st.integers(1, 5),
)
def test_any_course(actions: list[tuple[str, int, float]], least: int) -> None:
    """No place is lost or given twice, the limit keeps its bounds, and all that waits comes to its turn."""

    async def play() -> None:
        limit = AdaptiveLimit(least, 4 * least)
        held = 0

        async def request(seconds: float, owner: int) -> None:
            nonlocal held
            async with limit.of(owner):
                held += 1
                began = asyncio.get_running_loop().time()
                try:
                    await asyncio.sleep(seconds)
                    limit.answered(1000, began)
                finally:
                    held -= 1

        tasks = []
        for action, number, seconds in actions:
            if action == "ask":
                tasks += [asyncio.create_task(request(seconds, number)) for _ in range(2 * least)]
            elif action == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif action == "wait":
                await asyncio.sleep(seconds)
            elif action == "refuse":
                limit.refused(asyncio.get_running_loop().time() - seconds)
            elif action == "pause":
                limit.refused(asyncio.get_running_loop().time(), seconds)
            await settled()
            assert held == limit.in_flight <= limit.most and 1 <= limit.limit <= limit.most
        await asyncio.gather(*tasks, return_exceptions=True)
        assert limit.in_flight == held == 0

    run_in_virtual_time(play())
