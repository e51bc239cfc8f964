"""The supervisor of background tasks, and the sets of short tasks that their owners keep.

A *background task* runs for as long as the gateway does: it has a name, is restarted with a growing delay when it
fails, and its failure shows in status, readiness and metrics. Only `Supervisor` starts such tasks.

*Short tasks* belong to an owner, such as a connection or a pull, which waits for them or cancels them. `TaskSet` keeps
them.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

_logger = structlog.get_logger()

Result = TypeVar("Result")
Work = Callable[[], Coroutine[Any, Any, None]]


class TaskState(enum.StrEnum):
    """What a background task does."""

    RUNNING = "running"
    WAITING = "waiting to restart"


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One background task.

    Attributes:
        name: The name that it was started with.
        state: Whether it runs.
        failures: How often it has failed since it was started.
        failing: Whether it waits to be restarted, or failed so lately that it may fail again.
        error: What it failed with last, or None.
    """

    name: str
    state: TaskState
    failures: int
    failing: bool
    error: str | None


class _Supervised:
    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self.work = work
        self.state = TaskState.RUNNING
        self.failures = 0
        self.error: str | None = None
        self.delay = 0.0
        self.started = 0.0
        self.task: asyncio.Task[None] | None = None


class Supervisor:
    """Runs background tasks by name and restarts those that fail.

    A task that returns has done its work and is not restarted.
    """

    def __init__(
        self,
        restart_delay: float,
        max_restart_delay: float,
        on_failure: Callable[[str], None] = lambda name: None,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make a supervisor without tasks.

        The delay before a restart is `restart_delay` seconds; it doubles with each failure up to `max_restart_delay`
        and is back at its beginning when the task has run for `max_restart_delay`. `on_failure` is called with the
        name of a task that has failed. `clock` gives seconds since any fixed point; by default it is the loop's.
        """
        self._restart_delay = restart_delay
        self._max_restart_delay = max_restart_delay
        self._on_failure = on_failure
        self._clock = clock
        self._sleep = sleep
        self._tasks: dict[str, _Supervised] = {}
        self._stopped = asyncio.Event()

    def start(self, name: str, work: Work) -> None:
        """Start a task: `work` makes the coroutine, once more for every restart.

        Raises ValueError when a task of that name is there.
        """
        if name in self._tasks:
            raise ValueError(f"a task {name!r} is running already")
        supervised = _Supervised(name, work)
        self._tasks[name] = supervised
        supervised.task = asyncio.create_task(self._keep_running(supervised), name=name)

    async def cancel(self, *names: str) -> None:
        """Cancel tasks and wait until they have ended. Names that are not there are ignored."""
        tasks = [found.task for name in names if (found := self._tasks.pop(name, None)) is not None]
        running = [task for task in tasks if task is not None and task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def stop(self) -> None:
        """Cancel all tasks and wait until they have ended; `join` then returns."""
        await self.cancel(*self._tasks)
        self._stopped.set()

    async def join(self) -> None:
        """Wait until the supervisor is stopped."""
        await self._stopped.wait()

    def status(self) -> Sequence[TaskStatus]:
        """Return all tasks, by name."""
        return [
            TaskStatus(task.name, task.state, task.failures, self._is_failing(task), task.error)
            for task in sorted(self._tasks.values(), key=lambda task: task.name)
        ]

    @property
    def failing(self) -> Sequence[str]:
        """The names of the tasks that wait to be restarted, or failed lately."""
        return sorted(task.name for task in self._tasks.values() if self._is_failing(task))

    async def _keep_running(self, task: _Supervised) -> None:
        while True:
            task.state, task.started = TaskState.RUNNING, self._now()
            try:
                await task.work()
            except Exception as error:
                self._note_failure(task, error)
            else:
                if self._tasks.get(task.name) is task:
                    del self._tasks[task.name]
                return
            await self._sleep(task.delay)

    def _note_failure(self, task: _Supervised, error: Exception) -> None:
        ran = self._now() - task.started
        if ran >= self._max_restart_delay:
            task.delay = 0.0
        task.delay = min(max(2 * task.delay, self._restart_delay), self._max_restart_delay)
        task.state = TaskState.WAITING
        task.failures += 1
        task.error = f"{type(error).__name__}: {error}"
        _logger.error("background task failed", task=task.name, restart_in=task.delay, exc_info=error)
        self._on_failure(task.name)

    def _is_failing(self, task: _Supervised) -> bool:
        return task.state is TaskState.WAITING or (task.failures > 0 and self._now() - task.started < task.delay)

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_running_loop().time()


class TaskSet:
    """Short tasks of one owner, which hears of their end through `on_end` or from the tasks that `start` returns."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, Result], on_end: Callable[[asyncio.Task[Result]], None] | None = None
    ) -> asyncio.Task[Result]:
        """Start a task and keep it until it ends. `on_end` is called even if it is cancelled before its first step."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if on_end is not None:
            task.add_done_callback(on_end)
        return task

    async def join(self, timeout: float | None = None) -> bool:
        """Wait until no task is left, for `timeout` seconds at most. Return whether none is left."""
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while self._tasks:
            left = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                return False
            await asyncio.wait(self._tasks, timeout=left)
        return True

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended; their errors are dropped."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here, so that asyncio does not report an owner that does not look
