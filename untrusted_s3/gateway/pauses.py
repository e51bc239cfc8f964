"""Pauses between repeats of what should happen rarely."""

from __future__ import annotations

import asyncio


class Pauses:
    """Keeps something that happens to a folder from happening again and again.

    After each time there is a pause of `first` seconds, which doubles with each repeat up to `longest`. When nothing
    has happened for as long as the pause and `longest`, it is short again.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._last: dict[str, tuple[float, float]] = {}  # by folder ID: when it happened last, and the pause after that

    def left(self, folder_id: str) -> float:
        """Return the seconds until it may happen again; 0 for now."""
        if folder_id not in self._last:
            return 0.0
        last, pause = self._last[folder_id]
        return max(last + pause - _now(), 0.0)

    def note(self, folder_id: str) -> None:
        """Note that it happens."""
        now = _now()
        last, pause = self._last.get(folder_id, (now, 0.0))
        again = pause and now - last < pause + self._longest
        self._last[folder_id] = now, min(2 * pause, self._longest) if again else self._first


def is_due(last: float, interval: float, step: float) -> bool:
    """Return whether `interval` seconds have passed since the loop's time `last`, for a loop that looks every `step`.

    `interval` is a multiple of `step`, and timers are not exact.
    """
    return _now() - last >= interval - step / 2


def _now() -> float:
    return asyncio.get_running_loop().time()
