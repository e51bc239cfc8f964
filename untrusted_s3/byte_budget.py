"""Shares of memory that tasks take and give back, so that buffers stay within a setting."""

from __future__ import annotations

import asyncio
from collections import deque

from untrusted_s3 import limits


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


class SharedBudget:
    """`total` bytes for several users, none of whom can keep the others from going on: who has nothing out may always
    take one demand. At most that many demands are out beyond the total."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: list[asyncio.Future[None]] = []

    def share(self, limit: int | None = None) -> BudgetShare:
        """What one user takes from: at most `limit` at a time, and never more than half of the total."""
        return BudgetShare(self, min(limit or limits.REQUEST_WINDOW, self.total // 2))

    def _changed(self, size: int) -> None:
        self.used += size
        if size < 0:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _released(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future


class BudgetShare:
    """One user's part of a shared budget."""

    def __init__(self, budget: SharedBudget, limit: int) -> None:
        self.used = 0
        self._budget = budget
        self._limit = limit

    async def acquire(self, size: int) -> None:
        """Takes `size` bytes, as soon as they are free."""
        while self.used and (self.used + size > self._limit or self._budget.used + size > self._budget.total):
            await self._budget._released()
        self.used += size
        self._budget._changed(size)

    def release(self, size: int) -> None:
        """Gives `size` bytes back."""
        self.used -= size
        self._budget._changed(-size)
