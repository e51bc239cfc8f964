"""Blocking calls in threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def in_thread(function: Callable[..., Result], *args: Any, **parameters: Any) -> Result:
    """Call `function` in a thread of its own and give what it returns or raises.

    A cancelled caller does not wait for the call, and neither does the end of the program. `asyncio.to_thread` would
    make both wait, and a store that hangs holds a call for minutes; a few such calls would also occupy all threads of
    the pool.
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
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(deliver, take, value)

    threading.Thread(target=work, name=getattr(function, "__name__", "call"), daemon=True).start()
    return await future


async def in_thread_to_the_end(function: Callable[..., Result], *args: Any, **parameters: Any) -> Result:
    """Call `function` in a thread of the pool and give what it returns or raises; wait for its end even when cancelled.

    For calls on local files that use what the caller closes afterwards.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **parameters))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
