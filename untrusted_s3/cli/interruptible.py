"""Work that SIGINT and SIGTERM end in order: what it has begun is cleaned up before the program ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


def run_interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs it in a new event loop. Raises KeyboardInterrupt after either signal."""
    try:
        return uvloop.run(_run(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _run(work: Coroutine[Any, Any, Result]) -> Result:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
