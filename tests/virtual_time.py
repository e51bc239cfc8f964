"""An event loop whose time passes only when nothing else can go on.

A sleep of any length ends at once, but not before everything that waits for no timer has come to rest. So a test can
play hours, and `settled` waits for exactly the work that can be done now.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

Result = TypeVar("Result")

_MOMENT = 1e-6
_DEADLOCK = 10.0  # real seconds
# For tests and modules (as `pytestmark`) that run on this loop. tests/conftest.py knows the name.
virtual_time = pytest.mark.asyncio(loop_factories=["virtual time"])


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio loop with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:  # no timer is set: only a thread can go on
            ready = super().select(_DEADLOCK)
            if not ready:
                raise RuntimeError("the test waits for something that never happens")
            return ready
        ready = super().select(0)
        if not ready:
            self._loop.now += timeout
        return ready


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a new loop of this kind."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


async def settled() -> None:
    """Wait until everything that needs no time is done."""
    await asyncio.sleep(_MOMENT)
