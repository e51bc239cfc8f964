"""Blocking calls in threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

Result = TypeVar("Result")

# How long no call begins after one, as a multiple of its time: threads share the interpreter with the event loop.
_REST = 3.0
# How many gathered calls a thread takes at once. Where they take long, so many wait that another thread takes some.
_MOST_AT_ONCE = 8

_Call = tuple[Callable[[], Any], asyncio.Future[Any]]


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


async def in_thread_to_the_end(
    function: Callable[..., Result], *args: Any, on_cancel: Callable[[], object] = lambda: None, **parameters: Any
) -> Result:
    """Call `function` in a thread of the pool and give what it returns or raises; wait for its end even when cancelled.

    For calls on local files that use what the caller closes afterwards. `on_cancel` is called before that wait.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **parameters))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        on_cancel()
        await asyncio.wait([running])
        raise


class GatheredCalls:
    """Calls of one kind, for use within one event loop.

    A change of threads costs as much as writing a small file. A call goes to a thread at once if none is at work, and
    else together with others that came meanwhile.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Call] = deque()
        self._threads = 0

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call `function` in a thread of the pool and give what it returns or raises.

        A cancelled caller waits for the end of a call that has begun.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        call: _Call = (partial(function, *args), future)
        self._waiting.append(call)
        self._start()
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if call in self._waiting:
                self._waiting.remove(call)
            else:
                await asyncio.wait([future])
            raise

    def _start(self) -> None:
        if not self._waiting or (self._threads and len(self._waiting) < _MOST_AT_ONCE):
            return
        calls = [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]
        self._threads += 1
        running = asyncio.get_running_loop().run_in_executor(None, _call_all, [call for call, _ in calls])
        running.add_done_callback(partial(self._deliver, [future for _, future in calls]))

    def _deliver(
        self, futures: list[asyncio.Future[Any]], running: asyncio.Future[list[tuple[Any, Exception | None]]]
    ) -> None:
        self._threads -= 1
        for future, (result, error) in zip(futures, running.result(), strict=True):
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._start()


class LargeWork:
    """Calls whose time grows with the size of what a device has sent: above `least` bytes, each goes to a thread.

    One call at a time is in a thread, with pauses between, so that all of them together take a bounded part of the
    time. Owners take turns: who needs many calls waits for them, and others do not.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        self._busy = False
        self._rested = 0.0

    async def run(self, owner: Hashable, size: int, function: Callable[..., Result], *args: Any) -> Result:
        """Call `function`, at once if `size` is small. Raises what it raises."""
        if size <= self._least:
            return function(*args)
        await self._turn(owner)
        try:
            await asyncio.sleep(self._rested - _now())
            began = _now()
            try:
                return await in_thread_to_the_end(function, *args)
            finally:
                self._rested = _now() + _REST * (_now() - began)
        finally:
            self._next()

    async def _turn(self, owner: Hashable) -> None:
        if not self._busy:
            self._busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            owner, turns = next(iter(self._waiting.items()))
            turn = turns.popleft()
            self._waiting.move_to_end(owner)
            if not turns:
                del self._waiting[owner]
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False


def _call_all(calls: list[Callable[[], Any]]) -> list[tuple[Any, Exception | None]]:
    results: list[tuple[Any, Exception | None]] = []
    for call in calls:
        try:
            results.append((call(), None))
        except Exception as error:
            results.append((None, error))
    return results


def _now() -> float:
    return asyncio.get_running_loop().time()
