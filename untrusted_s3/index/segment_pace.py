"""The pace of log segments: at once in a quiet folder, at intervals in a busy one, so that not every change of a busy
folder makes a segment."""

from __future__ import annotations

import time
from collections.abc import Callable

from untrusted_s3.settings import LogSettings


class SegmentPace:
    """Allows `segment_burst` segments without a pause and one every `segment_pace` seconds after that.

    The burst refills at the same pace. Full segments are free, since they are as few as the entries allow. A small one
    waits for one pace at most: what was written before puts off only the refill. `clock` gives seconds since any fixed
    point.
    """

    def __init__(self, settings: LogSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = settings.segment_burst
        self._pace = settings.segment_pace
        self._clock = clock
        self._full_at = float("-inf")  # when the burst is complete again; each segment defers it

    @property
    def delay(self) -> float:
        """Seconds until a segment is allowed."""
        return max(self._full_at - self._clock() - (self._burst - 1) * self._pace, 0.0)

    def appended(self, *, full: bool = False) -> None:
        """Note that a segment was written."""
        if not full:
            now = self._clock()
            self._full_at = min(max(self._full_at, now), now + (self._burst - 1) * self._pace) + self._pace
