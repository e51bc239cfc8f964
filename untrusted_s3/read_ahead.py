"""A read-ahead pipeline: several pieces of work under way, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def read_ahead(
    work: Iterable[Coroutine[Any, Any, Result]], depth: int, discard: Callable[[Result], None] = lambda result: None
) -> AsyncGenerator[Result, None]:
    """Run the coroutines of `work`, at most `depth` at once, and yield their results in order.

    `work` is read lazily: each coroutine is taken when it is its turn to start, and starts before the next one is
    taken. An exception of a coroutine is raised in its place, after the results before it; what is under way is then
    cancelled. The same happens when the iterator is closed (`contextlib.aclosing`). `discard` is called with each
    result that was ready but not yielded, so that what it holds can be released.
    """
    if depth == 1:
        for one in work:
            yield await one
        return
    waiting = iter(work)
    ahead: deque[asyncio.Task[Result]] = deque()
    try:
        while True:
            while len(ahead) < depth:
                coroutine = next(waiting, None)
                if coroutine is None:
                    break
                ahead.append(asyncio.create_task(coroutine))
            if not ahead:
                return
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        for result in await asyncio.gather(*ahead, return_exceptions=True):
            if not isinstance(result, BaseException):
                discard(result)
