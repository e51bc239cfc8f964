"""Calls that block, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *args: Any, **parameters: Any) -> Result:
    """What `function` returns or raises, from a thread of its own.

    `asyncio.to_thread` would keep a program that wants to end until the call has returned, and a store that hangs
    holds each for minutes; some such calls would also take all the threads that there are.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def deliver(take: Callable[[Any], None], value: object) -> None:
        if not future.done():
            take(value)

    def work() -> None:
        take: Callable[[Any], None] = future.set_result
        value: object
        try:
            value = function(*args, **parameters)
        except Exception as error:
            take, value = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(deliver, take, value)

    threading.Thread(target=work, name=getattr(function, "__name__", "call"), daemon=True).start()
    return await future
