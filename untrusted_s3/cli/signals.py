"""SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a new event loop; either signal cancels it, so that it can clean up.

    Raises KeyboardInterrupt after a signal.
    """
    try:
        return uvloop.run(_run(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(work: Coroutine[Any, Any, Result]) -> Result:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in _SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class StopSignals:
    """Signals that stop a service. To be made in the task that runs it.

    While `graceful` is true, the first signal sets `stop`. Any other signal cancels the task, except within
    `same_signal` seconds after the first one: a signal can arrive twice, from the terminal and from a program like make
    that passes it on.
    """

    def __init__(self, same_signal: float) -> None:
        self.graceful = False
        self.stop = asyncio.Event()
        self._same_signal = same_signal
        self._stopped_at = float("-inf")
        self._task = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._handle)

    def _handle(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.graceful and not self.stop.is_set():
            self.stop.set()
            self._stopped_at = now
        elif now - self._stopped_at < self._same_signal:
            return
        elif self._task is not None:
            self._task.cancel()
