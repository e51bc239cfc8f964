"""Work on many entries at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


async def for_each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], concurrency: int) -> None:
    """Do `work` on each item, at most `concurrency` at once. Raises the first exception, after cancelling the rest.

    `items` is iterated lazily.
    """
    waiting = iter(items)
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(_work(waiting, work))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _work(waiting: Iterator[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    for item in waiting:
        await work(item)
        await asyncio.sleep(0)  # work that need not wait would keep everything else from running
