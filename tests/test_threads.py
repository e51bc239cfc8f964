from __future__ import annotations

import asyncio
import threading

import pytest

from tests.loops import RunAsync
from tests.virtual_time import VirtualTimeLoop, virtual_time
from tests.waiting import PATIENCE
from untrusted_s3.threads import GatheredCalls, LargeWork, in_thread, in_thread_to_the_end


async def test_results_and_errors() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


def test_nobody_waits_for_a_call_that_hangs(
    run_async: RunAsync,
) -> None:
    hanging, ended = threading.Event(), []

    def wait() -> None:
        hanging.wait()
        ended.append(True)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await in_thread(wait)

    run_async(give_up())
    assert ended == [], "neither the caller nor the end of the loop has waited"
    hanging.set()


async def test_many_at_once() -> None:
    gate = threading.Barrier(40)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(in_thread(gate.wait) for _ in range(40)))


@virtual_time
async def test_large_work_of_owners_takes_turns() -> None:
    work, done = LargeWork(10), list[str]()
    calls = [asyncio.ensure_future(work.run("many", 11, done.append, f"many {number}")) for number in range(5)]
    await asyncio.sleep(0)
    calls += [asyncio.ensure_future(work.run(owner, 11, done.append, owner)) for owner in ("one", "two")]
    await asyncio.sleep(0)
    calls[2].cancel()
    await asyncio.wait(calls)
    assert done == ["many 0", "many 1", "one", "two", "many 3", "many 4"]
    assert await work.run("many", 11, threading.get_ident) != threading.get_ident()


@virtual_time
async def test_small_work_waits_for_nobody() -> None:
    work, go_on = LargeWork(10), threading.Event()
    large = asyncio.ensure_future(work.run("many", 11, go_on.wait))
    await asyncio.sleep(0)
    assert await work.run("one", 10, threading.get_ident) == threading.get_ident()
    go_on.set()
    assert await large
    with pytest.raises(ZeroDivisionError):
        await work.run("one", 11, divmod, 1, 0)
    assert await work.run("one", 11, divmod, 7, 2) == (3, 1)


@virtual_time
async def test_who_is_cancelled_lets_others_go_on() -> None:
    work, go_on = LargeWork(10), threading.Event()
    calls = [asyncio.ensure_future(work.run(number, 11, go_on.wait)) for number in range(3)]
    await asyncio.sleep(0)
    for call in calls[:2]:
        call.cancel()
    go_on.set()
    await asyncio.wait(calls)
    assert [call.cancelled() for call in calls] == [True, True, False]


@virtual_time
async def test_large_work_leaves_most_of_the_time_to_others() -> None:
    work = LargeWork(10)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    def take(seconds: float) -> float:
        began = loop.now
        loop.now += seconds
        return began

    begins = [await work.run("one", 11, take, 2.0) for _ in range(3)]
    assert begins == [0.0, 8.0, 16.0]


async def test_what_goes_on_to_the_end_is_told_when_nobody_wants_it() -> None:
    began, told = threading.Event(), threading.Event()

    def work() -> bool:
        began.set()
        return told.wait(PATIENCE)

    call = asyncio.ensure_future(in_thread_to_the_end(work, on_cancel=told.set))
    await asyncio.to_thread(began.wait)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert told.is_set()


async def test_gathered_calls_share_threads() -> None:
    gathered, first, release = GatheredCalls(), threading.Event(), threading.Event()
    threads: list[int] = []

    def begin() -> None:
        first.set()
        release.wait(PATIENCE)

    def note(number: int) -> int:
        threads.append(threading.get_ident())
        return number

    async with asyncio.timeout(PATIENCE):
        beginning = asyncio.create_task(gathered.run(begin))
        await asyncio.to_thread(first.wait)
        waiting = [asyncio.create_task(gathered.run(note, number)) for number in range(7)]
        await asyncio.sleep(0)
        assert threads == []  # they wait for the thread
        release.set()
        assert await asyncio.gather(*waiting) == list(range(7))
        await beginning
    assert len(set(threads)) == 1


async def test_many_gathered_calls_do_not_wait_for_a_slow_one() -> None:
    gathered, release = GatheredCalls(), threading.Event()
    async with asyncio.timeout(PATIENCE):
        slow = asyncio.create_task(gathered.run(release.wait))
        await asyncio.sleep(0)
        assert await asyncio.gather(*(gathered.run(abs, -number) for number in range(16))) == list(range(16))
        release.set()
        await slow


async def test_an_error_is_that_of_its_own_gathered_call() -> None:
    gathered = GatheredCalls()
    results = await asyncio.gather(*(gathered.run(divmod, 1, number) for number in range(3)), return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1:] == [(1, 0), (0, 1)]


async def test_who_is_cancelled_waits_for_a_gathered_call_that_runs_and_for_no_other() -> None:
    gathered, release, ended = GatheredCalls(), threading.Event(), []

    def work() -> None:
        release.wait(PATIENCE)
        ended.append(True)

    async with asyncio.timeout(PATIENCE):
        running = asyncio.create_task(gathered.run(work))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(gathered.run(ended.append, False))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=0)
        assert not done
        release.set()
        await asyncio.wait([running])
    assert running.cancelled() and waiting.cancelled()
    assert ended == [True]
