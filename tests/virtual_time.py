"""Event loops whose time does not depend on the machine.

On a loop with *virtual time*, time passes only when nothing else can go on. A sleep of any length ends at once, but not
before everything that waits for no timer has come to rest. So a test can play hours, and `settled` waits for exactly
the work that can be done now. Calls in threads by `asyncio.to_thread` count as work that goes on.

On a loop with *paused time*, time passes only when the test calls `advance`. Sockets and processes work as usual, so a
timer can neither run out too early nor too late, however slow they are.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

_MOMENT = 1e-6
_DEADLOCK = 120.0  # real seconds


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time passes when nothing else can go on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0  # in threads
        super().__init__(_VirtualTime(self))

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:  # type: ignore[override]
        call = super().run_in_executor(executor, func, *args)
        self.calls += 1
        call.add_done_callback(self._ended)
        return call

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self.calls -= 1


class PausedTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_PausedTime())

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def wait(self) -> Any:
        """Wait for a socket, a thread or a signal: no timer can run out."""
        ready = super().select(_DEADLOCK)
        if not ready:
            raise RuntimeError("the test waits for something that never happens")
        return ready


class _VirtualTime(_Selector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or (timeout > 0 and self._loop.calls):
            return self.wait()
        # One file is the loop's own, which wakes it for calls that are ready already.
        ready = super().select(0) if len(self.get_map()) > 1 else []
        if not ready:
            self._loop.now += timeout
        return ready


class _PausedTime(_Selector):
    def select(self, timeout: float | None = None) -> Any:
        return super().select(0) if timeout is not None and timeout <= 0 else self.wait()


CONTROLLED_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "virtual time": VirtualTimeLoop,
    "paused time": PausedTimeLoop,
}
# For tests and modules (as `pytestmark`) that run on such a loop. tests/conftest.py knows the names.
virtual_time = pytest.mark.asyncio(loop_factories=["virtual time"])
paused_time = pytest.mark.asyncio(loop_factories=["paused time"])


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a new loop with virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


async def settled() -> None:
    """Wait, in virtual time, until everything that needs no time is done."""
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
    await asyncio.sleep(_MOMENT)


async def advance(seconds: float) -> None:
    """Let time pass on a loop with paused time, and wait until the timers that run out have been handled."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, PausedTimeLoop)
    loop.now += seconds
    handled = loop.create_future()
    loop.call_later(0, handled.set_result, None)
    await handled
