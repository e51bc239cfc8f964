"""Waiting for conditions: the only deadline is one that no machine needs, however busy it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench.patience import PATIENCE
from tests.virtual_time import PausedTimeLoop, VirtualTimeLoop

__all__ = ["PATIENCE", "give_a_chance", "until", "wait_until"]

_POLL_SECONDS = 0.001
_CHANCE_SECONDS = 0.03


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds. Raises TimeoutError if it never does."""
    loop = asyncio.get_running_loop()
    clock = loop.time if isinstance(loop, VirtualTimeLoop) else time.monotonic
    deadline = clock() + PATIENCE
    while not condition():
        if clock() > deadline:
            raise TimeoutError("what the test waits for never happens")
        if isinstance(loop, PausedTimeLoop):
            await loop.run_in_executor(None, time.sleep, _POLL_SECONDS)
        else:
            await asyncio.sleep(_POLL_SECONDS)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait as `until` does, outside of an event loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for never happens")
        time.sleep(_POLL_SECONDS)


async def give_a_chance() -> None:
    """Give what must not happen some time to happen. What must happen is waited for with `until`."""
    await asyncio.to_thread(time.sleep, _CHANCE_SECONDS)
