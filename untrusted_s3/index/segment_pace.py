"""The pace of log segments: at once in a quiet folder, at intervals in a busy one, so that not every change of a busy
folder makes a segment."""

from __future__ import annotations

import time
from collections.abc import Callable

from untrusted_s3.settings import LogSettings

# A segment that need not keep the pace comes so long after the one before it, and so seldom.
_QUIET_SECONDS = 1.0
_LONE_INTERVAL = 60.0


class SegmentPace:
    """Allows `segment_burst` segments without a pause and one every `segment_pace` seconds after that.

    The burst refills at the same pace. Full segments are free, since they are as few as the entries allow. A small one
    waits for one pace at most: what was written before puts off only the refill. Once a minute one need not wait for
    the pace if nothing else is under way, so that a lone change is soon announced when much work has just ended.

    `clock` gives seconds since any fixed point.
    """

    def __init__(self, settings: LogSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = settings.segment_burst
        self._pace = settings.segment_pace
        self._clock = clock
        self._full_at = float("-inf")  # when the burst is complete again; each segment defers it
        self._last_at = float("-inf")
        self._lone_at = float("-inf")  # when one did not keep the pace

    @property
    def delay(self) -> float:
        """Seconds until a segment is allowed."""
        return max(self._full_at - self._clock() - (self._burst - 1) * self._pace, 0.0)

    @property
    def lone_delay(self) -> float:
        """Seconds until a segment is allowed if nothing more is under way."""
        exempt_at = max(self._last_at + _QUIET_SECONDS, self._lone_at + _LONE_INTERVAL)
        return min(self.delay, max(exempt_at - self._clock(), 0.0))

    def appended(self, *, full: bool = False) -> None:
        """Note that a segment was written."""
        now = self._clock()
        self._last_at = now
        if full:
            return
        if self.delay > 0:
            self._lone_at = now
        self._full_at = min(max(self._full_at, now), now + (self._burst - 1) * self._pace) + self._pace
