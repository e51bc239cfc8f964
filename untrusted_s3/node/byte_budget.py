"""A share of memory that tasks take and give back, so that buffers stay within a setting."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """`total` bytes, handed out in the order in which they were asked for.

    A single demand above the total is met once nothing else is out: it would wait for ever otherwise.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        """Takes `size` bytes, as soon as they are free and all earlier demands are met."""
        if not self._waiting and self._fits(size):
            self.used += size
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.release(size)
            self._hand_out()
            raise

    def release(self, size: int) -> None:
        """Gives `size` bytes back."""
        self.used -= size
        self._hand_out()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.total or self.used == 0

    def _hand_out(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, future = self._waiting.popleft()
            if not future.done():  # not given up meanwhile
                self.used += size
                future.set_result(None)
