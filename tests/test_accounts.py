"""Memory accounts: bounds, order, fairness, progress; with mixed sizes by hypothesis."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.virtual_time import run_in_virtual_time, settled, virtual_time
from untrusted_s3.accounts import Account, ByteCache, Share

CAPACITY = 90


@virtual_time
async def test_what_fits_is_granted_at_once() -> None:
    account = Account(CAPACITY)
    share = account.share("a")
    await share.acquire(20)
    await share.acquire(20)
    assert account.used == share.used == account.used_by("a") == 40
    share.release(15)
    assert account.used == 25
    assert account.most_used == 40
    share.close()
    assert account.used == 0
    assert account.usage() == {}


@virtual_time
async def test_one_owner_leaves_a_third_to_others() -> None:
    account = Account(CAPACITY)
    greedy, other = account.share("greedy"), account.share("other")
    waiting = [asyncio.ensure_future(greedy.acquire(10)) for _ in range(20)]
    await settled()
    assert greedy.used == 60
    await other.acquire(10)
    await other.acquire(10)
    assert other.used == 20
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


@virtual_time
async def test_the_demands_of_an_owner_are_granted_in_order_whatever_their_size() -> None:
    account = Account(CAPACITY)
    share, second = account.share("a"), account.share("a")
    granted: list[int] = []

    async def take(of: Share, size: int) -> None:
        await of.acquire(size)
        granted.append(size)

    await share.acquire(50)
    tasks = [asyncio.ensure_future(take(of, size)) for of, size in ((share, 40), (second, 1), (share, 2))]
    await settled()
    assert granted == []
    share.release(50)
    await asyncio.gather(*tasks)
    assert granted == [40, 1, 2]


@virtual_time
async def test_the_owner_that_holds_least_is_served_first() -> None:
    account = Account(CAPACITY)
    rich, poor, blocker = (account.share(name) for name in ("rich", "poor", "blocker"))
    order: list[str] = []

    async def take(share: Share) -> None:
        await share.acquire(8)
        order.append(str(share.owner))

    await rich.acquire(30)
    await blocker.acquire(35)
    tasks = [asyncio.ensure_future(take(share)) for share in (rich, poor)]
    await settled()
    assert order == ["poor"]
    blocker.release(35)
    await asyncio.gather(*tasks)
    assert order == ["poor", "rich"]


@virtual_time
async def test_with_a_guarantee_an_owner_that_holds_nothing_never_waits() -> None:
    account = Account(CAPACITY, guarantee=True)
    slow = account.share("slow")
    await slow.acquire(CAPACITY)
    for number in range(5):
        share = account.share(number)
        await share.acquire(30)
        second = asyncio.ensure_future(share.acquire(1))
        await settled()
        assert not second.done()
        second.cancel()
    assert account.used == CAPACITY + 5 * 30


@virtual_time
async def test_a_demand_above_the_capacity_is_granted_when_nothing_else_is_held() -> None:
    account = Account(CAPACITY)
    small, large = account.share("small"), account.share("large")
    await small.acquire(10)
    demand = asyncio.ensure_future(large.acquire(2 * CAPACITY))
    later = asyncio.ensure_future(account.share("later").acquire(1))
    await settled()
    assert not demand.done()
    assert not later.done(), "small demands could keep the large one waiting without end"
    small.release(10)
    await demand
    assert not later.done()
    large.release(2 * CAPACITY)
    await later


@virtual_time
async def test_a_share_has_a_limit_of_its_own() -> None:
    account = Account(CAPACITY)
    share = account.share("a", limit=25)
    await share.acquire(30)  # a single demand above the limit
    share.release(30)
    await share.acquire(20)
    demand = asyncio.ensure_future(share.acquire(10))
    await settled()
    assert not demand.done()
    share.release(5)
    await demand


@virtual_time
async def test_a_cancelled_demand_gives_its_place_to_the_next() -> None:
    account = Account(CAPACITY)
    share = account.share("a")
    await share.acquire(60)
    first, second = (asyncio.ensure_future(share.acquire(size)) for size in (80, 1))
    await settled()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    share.release(20)
    await second
    assert share.used == 41


@virtual_time
async def test_a_demand_that_is_cancelled_as_it_is_granted_holds_nothing() -> None:
    account = Account(CAPACITY)
    share = account.share("a")
    await share.acquire(60)
    demand = asyncio.ensure_future(share.acquire(60))
    await settled()
    share.release(60)
    demand.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demand
    assert account.used == 0


@virtual_time
async def test_closing_a_share_cancels_what_waits() -> None:
    account = Account(CAPACITY)
    with account.share("a") as share:
        await share.acquire(60)
        demand = asyncio.ensure_future(share.acquire(60))
        await settled()
    with pytest.raises(asyncio.CancelledError):
        await demand
    assert account.used == 0


def test_the_owner_that_holds_most_evicts() -> None:
    account = Account(CAPACITY)
    dropped: list[str] = []

    def queue(owner: str) -> Share:
        def evict() -> None:
            dropped.append(owner)
            share.release(share.used)

        share = account.share(owner, evict=evict)
        return share

    honest, hostile = queue("honest"), queue("hostile")
    hostile_too = queue("hostile")
    honest.charge(40)
    hostile.charge(30)
    assert not dropped
    assert account.scarce
    hostile_too.charge(25)  # 55 over two connections
    assert dropped == ["hostile"]
    assert (honest.used, hostile.used, hostile_too.used) == (40, 0, 25)
    honest.charge(30)
    assert dropped == ["hostile", "honest"]


def test_a_cache_drops_what_was_not_used_for_longest() -> None:
    account = Account(30)
    cache: ByteCache[str, int] = ByteCache(account, "folder")
    for number, name in enumerate("abc"):
        cache.put(name, number, 10)
    assert cache.get("a") == 0
    cache.put("d", 3, 10)
    assert cache.get("b") is None
    assert [cache.get(name) for name in "acd"] == [0, 2, 3]
    assert account.used == 30
    cache.put("a", 7, 5)
    assert cache.get("a") == 7
    assert account.used == 25
    cache.put("e", 4, 100)  # never fits
    assert account.used <= 30
    cache.clear()
    assert account.used == 0
    cache.close()
    assert account.usage() == {}


def test_caches_of_one_account_share_it() -> None:
    account = Account(30)
    large: ByteCache[int, int] = ByteCache(account, "large")
    small: ByteCache[int, int] = ByteCache(account, "small")
    small.put(0, 0, 10)
    for number in range(10):
        large.put(number, number, 10)
    assert small.get(0) == 0
    assert len(large) == 2


DEMANDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 150)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(DEMANDS, st.booleans(), st.randoms(use_true_random=False))
def test_mixed_demands_are_bounded_in_order_and_all_met(
    demands: list[tuple[int, int, int]], guarantee: bool, chance: random.Random
) -> None:
    """Demands of four owners with two shares each, some larger than the account, released in any order."""

    async def run() -> None:
        account = Account(CAPACITY, guarantee=guarantee)
        largest = [max((size for owner, _, size in demands if owner == number), default=0) for number in range(4)]
        bound = CAPACITY + sum(largest) if guarantee else max(CAPACITY, *largest)
        shares = {(owner, number): account.share(owner) for owner in range(4) for number in range(2)}
        granted: dict[int, list[int]] = defaultdict(list)
        held: list[tuple[Share, int]] = []

        async def take(number: int, share: Share, size: int) -> None:
            await share.acquire(size)
            owner = share.owner
            assert isinstance(owner, int)
            granted[owner].append(number)
            held.append((share, size))
            assert account.used <= bound

        tasks = [
            asyncio.ensure_future(take(number, shares[owner, which], size))
            for number, (owner, which, size) in enumerate(demands)
        ]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            assert sum(size for _, size in held) <= account.used
            if held:
                share, size = held.pop(chance.randrange(len(held)))
                share.release(size)
        for task in tasks:
            task.result()
        for owner, numbers in granted.items():
            assert numbers == [number for number, demand in enumerate(demands) if demand[0] == owner]
        for share, size in held:
            share.release(size)
        assert account.used == 0

    run_in_virtual_time(run())


@settings(max_examples=100, deadline=None)
@given(DEMANDS, st.sets(st.integers(0, 59)), st.randoms(use_true_random=False))
def test_cancelled_demands_leave_nothing_behind(
    demands: list[tuple[int, int, int]], cancelled: set[int], chance: random.Random
) -> None:
    async def run() -> None:
        account = Account(CAPACITY)
        shares = {(owner, number): account.share(owner) for owner in range(4) for number in range(2)}

        async def take(share: Share, size: int) -> None:
            await share.acquire(size)
            try:
                await asyncio.sleep(0)
            finally:
                share.release(size)

        tasks = [asyncio.ensure_future(take(shares[owner, which], size)) for owner, which, size in demands]
        for number in sorted(cancelled):
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if number < len(tasks):
                tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert account.used == 0
        for share in shares.values():
            await share.acquire(CAPACITY)
            share.release(CAPACITY)

    run_in_virtual_time(run())


SIZES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), max_size=80)


@settings(max_examples=150, deadline=None)
@given(SIZES)
def test_a_flood_of_messages_evicts_only_the_owner_that_holds_most(charges: list[tuple[int, int]]) -> None:
    account = Account(CAPACITY)

    def queue(owner: int) -> Share:
        def evict() -> None:
            assert account.used > CAPACITY
            assert account.used_by(owner) == max(account.usage().values())
            share.release(share.used)

        share = account.share(owner, evict=evict)
        return share

    queues = [queue(owner) for owner in range(5)]
    for owner, size in charges:
        queues[owner].charge(size)
        assert account.used == sum(share.used for share in queues) <= CAPACITY


def test_a_share_tells_what_fits() -> None:
    account = Account(900)
    first, second = account.share("a"), account.share("b")
    assert first.fits(2000), "a single demand is never refused"
    first.charge(500)
    assert first.fits(100) and not first.fits(101)
    assert second.fits(266) and not second.fits(267)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 64, 4000])
def test_slots(most: int) -> None:
    account = Account.of_slots(most)
    one, other = account.share("a"), account.share("b")
    while one.fits(1):
        one.charge(1)
    assert one.used == most
    assert other.fits(1)


async def test_what_fits_comes_after_what_waits() -> None:
    account = Account(CAPACITY)
    share = account.share("a")
    await share.acquire(50)
    waiting = asyncio.ensure_future(share.acquire(50))
    await asyncio.sleep(0)
    assert not share.fits(1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert share.fits(1)


async def test_who_is_overdrawn() -> None:
    account = Account(CAPACITY)
    greedy, other = account.share("greedy"), account.share("other")
    await greedy.acquire(60)
    overdrawn = [greedy.overdrawn]
    await other.acquire(20)
    waiting = asyncio.ensure_future(other.acquire(20))
    await asyncio.sleep(0)
    overdrawn += [greedy.overdrawn, other.overdrawn]
    greedy.release(40)
    await waiting
    assert [*overdrawn, greedy.overdrawn] == [False, True, False, False], "first, nobody waits"
    other.close()
