"""An event loop for simulations without sockets, threads and signals: a fifth of the cost of asyncio's."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class QuickLoop(asyncio.BaseEventLoop):
    """A loop whose time passes when nothing else can go on, as that of `tests.virtual_time` does.

    Attributes:
        when_settled: Called whenever nothing can go on without time, if set. Then no time passes.
    """

    _stopping: bool  # of asyncio

    def __init__(self) -> None:
        super().__init__()
        self.when_settled: Callable[[], None] | None = None
        self._now = 0.0
        self._next: deque[tuple[Callable[..., object], tuple[Any, ...], contextvars.Context]] = deque()
        self._timers: list[tuple[float, int]] = []
        self._calls: dict[int, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    # Nobody uses the handle: tasks and futures do not.
    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> None:
        self._next.append((callback, args, context if context is not None else contextvars.copy_context()))

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = context if context is not None else contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        number = next(self._numbers)
        self._calls[number] = handle, functools.partial(context.run, callback, *args)
        heapq.heappush(self._timers, (when, number))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: it is passed over when its time has come."""

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end, close the loop, and return what it returns. Raises RuntimeError in a deadlock."""
        try:
            result = self.run_until_complete(work)
            self.run_until_complete(self.shutdown_asyncgens())
            return result
        finally:
            self.close()

    def _run_once(self) -> None:
        """Run what can go on, until somebody stops the loop. Then let something happen."""
        ready = self._next
        while ready:
            callback, args, context = ready.popleft()
            context.run(callback, *args)
            if self._stopping:
                return
        if self.when_settled is not None:
            self.when_settled()
        else:
            self._pass()

    def _pass(self) -> None:
        while self._timers:
            when, number = heapq.heappop(self._timers)
            handle, call = self._calls.pop(number)
            if not handle.cancelled():
                self._now = max(self._now, when)
                call()
                return
        raise RuntimeError("the test waits for something that never happens")
