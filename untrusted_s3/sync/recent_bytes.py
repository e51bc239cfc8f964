"""How much came over a line lately."""

from __future__ import annotations

from collections import deque

_STEPS = 10


class RecentBytes:
    """The bytes that came within the last `period` seconds, by tenths of it."""

    def __init__(self, period: float) -> None:
        self._step = period / _STEPS
        self._by_step: deque[tuple[int, int]] = deque()
        self._total = 0

    def add(self, now: float, size: int) -> None:
        """Count bytes that came now."""
        step = int(now / self._step)
        if self._by_step and self._by_step[-1][0] == step:
            _, before = self._by_step.pop()
            self._by_step.append((step, before + size))
        else:
            self._by_step.append((step, size))
        self._total += size

    def total(self, now: float) -> int:
        """Return how many bytes came lately."""
        oldest = int(now / self._step) - _STEPS
        while self._by_step and self._by_step[0][0] <= oldest:
            self._total -= self._by_step.popleft()[1]
        return self._total
