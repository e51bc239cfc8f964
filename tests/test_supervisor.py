"""Background tasks: names, restarts, what is visible of failures; and short tasks of an owner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog.testing

from tests.virtual_time import virtual_time
from tests.waiting import give_a_chance, until
from untrusted_s3.supervisor import Supervisor, TaskSet, TaskState


class Time:
    """A clock that moves only when somebody sleeps, and counts how long."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def new_supervisor(time: Time, on_failure: Callable[[str], None] = lambda name: None) -> Supervisor:
    return Supervisor(10.0, 60.0, on_failure, clock=lambda: time.now, sleep=time.sleep)


async def test_a_failed_task_is_restarted_with_a_growing_delay() -> None:
    time = Time()
    failed: list[str] = []
    supervisor = new_supervisor(time, failed.append)

    async def work() -> None:
        if len(failed) < 5:
            raise RuntimeError("no luck")
        await asyncio.Event().wait()

    with structlog.testing.capture_logs() as logs:
        supervisor.start("work", work)
        await until(lambda: len(failed) == 5 and supervisor.status()[0].state is TaskState.RUNNING)
    assert time.slept == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert failed == ["work"] * 5
    assert [log["event"] for log in logs] == ["background task failed"] * 5
    (status,) = supervisor.status()
    assert status.name == "work"
    assert status.failures == 5
    assert status.error == "RuntimeError: no luck"
    await supervisor.stop()


async def test_the_delay_is_short_again_after_the_task_has_run_for_long() -> None:
    time = Time()
    supervisor = new_supervisor(time)
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            time.now += 60
        if runs == 6:
            await asyncio.Event().wait()
        raise RuntimeError

    supervisor.start("work", work)
    await until(lambda: runs == 6)
    assert time.slept == [10.0, 20.0, 40.0, 10.0, 20.0]
    await supervisor.stop()


async def test_a_task_counts_as_failing_until_it_has_run_for_its_delay() -> None:
    time = Time()
    supervisor = new_supervisor(time)
    has_failed = False

    async def work() -> None:
        nonlocal has_failed
        if not has_failed:
            has_failed = True
            raise RuntimeError
        await asyncio.Event().wait()

    async def well() -> None:
        await asyncio.Event().wait()

    supervisor.start("work", work)
    supervisor.start("well", well)
    assert supervisor.failing == []
    await until(lambda: supervisor.status()[1].failures == 1 and supervisor.status()[1].state is TaskState.RUNNING)
    assert supervisor.failing == ["work"]
    time.now += 9.9
    assert supervisor.failing == ["work"]
    time.now += 0.2
    assert supervisor.failing == []
    await supervisor.stop()


async def test_one_failing_task_does_not_touch_the_others() -> None:
    supervisor = new_supervisor(Time())
    turns = 0

    async def fail() -> None:
        raise RuntimeError

    async def go_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    supervisor.start("fails", fail)
    supervisor.start("goes on", go_on)
    await until(lambda: turns > 100 and supervisor.status()[0].failures > 3)
    assert [task.name for task in supervisor.status()] == ["fails", "goes on"]
    await supervisor.stop()


async def test_a_task_that_returns_has_ended() -> None:
    supervisor = new_supervisor(Time())

    async def work() -> None:
        await asyncio.sleep(0)

    supervisor.start("work", work)
    await until(lambda: supervisor.status() == [])
    supervisor.start("work", work)
    await until(lambda: supervisor.status() == [])


async def test_two_tasks_of_one_name_are_refused() -> None:
    supervisor = new_supervisor(Time())

    async def work() -> None:
        await asyncio.Event().wait()

    supervisor.start("work", work)
    with pytest.raises(ValueError, match="work"):
        supervisor.start("work", work)
    await supervisor.stop()


async def test_cancel_and_stop_wait_for_the_end() -> None:
    supervisor = new_supervisor(Time())
    ended: list[str] = []
    may_end = False

    def work(name: str) -> Callable[[], None]:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await until(lambda: may_end)
                ended.append(name)

        return lambda: supervisor.start(name, run)

    for name in ("a", "b", "c"):
        work(name)()
    await asyncio.sleep(0)
    cancelling = asyncio.ensure_future(supervisor.cancel("a", "not there"))
    await give_a_chance()
    assert not cancelling.done()
    may_end = True
    await cancelling
    assert ended == ["a"]
    assert [task.name for task in supervisor.status()] == ["b", "c"]
    joined = asyncio.ensure_future(supervisor.join())
    await supervisor.stop()
    assert sorted(ended) == ["a", "b", "c"]
    await until(joined.done)


async def test_a_task_that_waits_to_restart_can_be_cancelled() -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    supervisor = Supervisor(10.0, 60.0, sleep=sleep)

    async def work() -> None:
        raise RuntimeError("broken")

    supervisor.start("work", work)
    await asleep.wait()
    assert supervisor.status()[0].state is TaskState.WAITING
    assert supervisor.failing == ["work"]
    await supervisor.stop()
    assert supervisor.status() == []


async def test_a_task_may_stop_others_and_start_itself_again() -> None:
    supervisor = new_supervisor(Time())
    done = asyncio.Event()

    async def other() -> None:
        await asyncio.Event().wait()

    async def again() -> None:
        done.set()
        await asyncio.Event().wait()

    async def work() -> None:
        await supervisor.cancel("other", "work")
        supervisor.start("work", again)

    supervisor.start("other", other)
    supervisor.start("work", work)
    await done.wait()
    assert [task.name for task in supervisor.status()] == ["work"]
    await supervisor.stop()


@virtual_time
async def test_a_set_of_tasks_is_joined_and_cancelled() -> None:
    tasks = TaskSet()
    ended: list[bool] = []
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    first = tasks.start(work())
    tasks.start(work(), lambda task: ended.append(task.cancelled()))
    assert len(tasks) == 2
    assert not await tasks.join(timeout=100)
    go.set()
    assert await tasks.join(timeout=100)
    assert first.result() == "done"
    assert ended == [False]
    go.clear()
    tasks.start(work(), lambda task: ended.append(task.cancelled()))
    await tasks.cancel()
    assert ended == [False, True]
    assert len(tasks) == 0


async def test_a_failed_task_of_a_set_is_no_unhandled_error() -> None:
    loop_errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: loop_errors.append(context))
    tasks = TaskSet()

    async def work() -> None:
        raise RuntimeError

    task = tasks.start(work())
    await tasks.join()
    assert isinstance(task.exception(), RuntimeError)
    del task
    assert loop_errors == []
