"""How often a folder's log may be extended: at once while little happens, less often while changes go on and on, so
that a busy folder does not make a segment of every change."""

from __future__ import annotations

import time
from collections.abc import Callable

from untrusted_s3 import limits


class SegmentPace:
    """Allows limits.SEGMENT_BURST segments, and then one every limits.SEGMENT_PACE seconds; what is not used comes back
    at that pace. `clock` gives seconds since any fixed point."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When all of the burst is there again: each segment moves it on.
        self._full_at = clock()

    @property
    def delay(self) -> float:
        """Seconds until a segment is allowed."""
        return max(self._full_at - self._clock() - (limits.SEGMENT_BURST - 1) * limits.SEGMENT_PACE, 0.0)

    def appended(self) -> None:
        """A segment was written."""
        self._full_at = max(self._full_at, self._clock()) + limits.SEGMENT_PACE
