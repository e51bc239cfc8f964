from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import RunAsync
from untrusted_s3.byte_budget import ByteBudget, SharedBudget

TOTAL = 10
# What to do, to which demand, and how many turns the loop gets before the next.
STEPS = st.lists(
    st.tuples(st.sampled_from(["acquire", "acquire", "release", "cancel"]), st.integers(1, 15), st.integers(0, 3)),
    max_size=30,
)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_never_over_the_total_in_order_and_nothing_is_lost(
    run_async: RunAsync, steps: list[tuple[str, int, int]]
) -> None:
    async def play() -> None:
        budget = ByteBudget(TOTAL)
        granted: list[int] = []  # numbers of demands, in the order in which they were met
        sizes: list[int] = []
        tasks: list[asyncio.Task[None]] = []
        released: set[int] = set()

        async def demand(number: int, size: int) -> None:
            await budget.acquire(size)
            granted.append(number)

        async def settle(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
                check()

        def check() -> None:
            holders = [number for number in granted if number not in released]
            assert budget.used <= TOTAL or len(holders) <= 1

        for action, value, turns in steps:
            holding = [number for number in granted if number not in released]
            waiting = [number for number, task in enumerate(tasks) if not task.done()]
            if action == "acquire":
                await settle(3)  # until what was granted before is seen to be granted
                sizes.append(value)
                tasks.append(asyncio.ensure_future(demand(len(tasks), value)))
                await settle(1)  # until it has asked
            elif action == "release" and holding:
                number = holding[value % len(holding)]
                released.add(number)
                budget.release(sizes[number])
            elif action == "cancel" and waiting:
                tasks[waiting[value % len(waiting)]].cancel()
            await settle(turns)
        await settle(len(tasks) + 5)

        holding = [number for number in granted if number not in released]
        assert budget.used == sum(sizes[number] for number in holding)
        assert granted == sorted(granted), "met in the order of the demands"
        waiting = [number for number, task in enumerate(tasks) if not task.done()]
        if waiting:
            assert budget.used > 0 and budget.used + sizes[waiting[0]] > TOTAL, "no demand waits that could be met"
        while waiting or holding:
            assert holding, "demands wait while nothing is out"
            number = holding.pop()
            released.add(number)
            budget.release(sizes[number])
            await settle(len(tasks) + 5)
            holding = [number for number in granted if number not in released]
            waiting = [number for number, task in enumerate(tasks) if not task.done()]
        assert budget.used == 0

    run_async(play())


async def test_a_demand_over_the_total_waits_until_all_is_back_and_keeps_its_place() -> None:
    budget = ByteBudget(10)
    await budget.acquire(1)
    large = asyncio.ensure_future(budget.acquire(100))
    small = asyncio.ensure_future(budget.acquire(1))
    await asyncio.sleep(0)
    assert not large.done() and not small.done()
    budget.release(1)
    await large
    await asyncio.sleep(0)
    assert not small.done()
    budget.release(100)
    await small
    assert budget.used == 1


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancelled_just_when_it_is_granted(turns: int) -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    first = asyncio.ensure_future(budget.acquire(10))
    second = asyncio.ensure_future(budget.acquire(10))
    await asyncio.sleep(0)
    budget.release(10)
    for _ in range(turns):
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    if not first.cancelled():
        budget.release(10)
    await second
    assert budget.used == 10


async def granted(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


async def test_a_share_gets_no_more_than_half() -> None:
    budget = SharedBudget(10)
    share = budget.share()
    await share.acquire(3)
    more = asyncio.ensure_future(share.acquire(3))
    assert not await granted(more)
    share.release(3)
    assert await granted(more)
    assert (share.used, budget.used) == (3, 3)


async def test_whoever_has_nothing_out_goes_on_whatever_others_hold() -> None:
    budget = SharedBudget(10)
    hogs = [budget.share() for _ in range(3)]
    for hog in hogs:
        await hog.acquire(5)
    late = budget.share()
    for _ in range(3):
        await late.acquire(4)
        second = asyncio.ensure_future(late.acquire(4))
        assert not await granted(second)
        late.release(4)
        assert await granted(second)
        late.release(4)
    hogs[0].release(5)
    hogs[1].release(5)
    await late.acquire(2)
    assert await granted(asyncio.ensure_future(late.acquire(2)))
    assert budget.used == 9


async def test_a_share_whose_wait_is_cancelled() -> None:
    budget = SharedBudget(10)
    share, other = budget.share(), budget.share()
    await share.acquire(5)
    waiting = asyncio.ensure_future(share.acquire(5))
    behind = asyncio.ensure_future(share.acquire(1))
    assert not await granted(waiting)
    waiting.cancel()
    share.release(5)
    assert await granted(behind)
    await other.acquire(5)
    assert (share.used, budget.used) == (1, 6)


async def test_a_demand_above_the_half_is_met_alone() -> None:
    share = SharedBudget(10).share()
    await share.acquire(100)
    assert not await granted(asyncio.ensure_future(share.acquire(1)))
