"""When a folder's log is looked at: often while somebody here is to hear what other gateways write, else seldom.

A gateway cannot know that it is alone on a store. One that has just started may write a segment before anything else
that others could see, so nothing takes the place of looking (docs/performance.md, "Requests while nothing happens").
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable

from untrusted_s3.settings import LogSettings


class Check(enum.Enum):
    """How much of the log is compared with what the store has."""

    LAST = "the last segment"
    NEW = "what came since the last check"
    WHOLE = "all of it"


class Looks:
    """The times of one folder's looks.

    `is_attended` returns whether a device is connected that shares the folder, or work is under way. `is_new` returns
    whether the log has gone on since it was last checked by NEW or WHOLE.
    """

    def __init__(self, settings: LogSettings, is_attended: Callable[[], bool], is_new: Callable[[], bool]) -> None:
        self._settings = settings
        self._is_attended = is_attended
        self._is_new = is_new
        self._came = asyncio.Event()
        self._attended_until = float("-inf")
        self._last_look = self._last_check = self._last_list = float("-inf")
        self._last_whole = float("-inf")
        self._rested = False

    def begin(self) -> None:
        """Count from now on."""
        now = _now()
        self._last_look = self._last_check = self._last_list = now
        self._attended_until = now + self._settings.idle_after

    def attend(self) -> None:
        """Note that somebody has come who is to hear of changes: the next look may be due."""
        self._came.set()

    def failed(self) -> None:
        """Note that a look has failed: it is repeated soon."""
        self._attended_until = _now() + self._settings.idle_after

    async def until_due(self) -> None:
        """Wait for the time of the next look."""
        while True:
            now = _now()
            if self._is_attended():
                self._attended_until = now + self._settings.idle_after
            often = now < self._attended_until
            due = self._last_look + (self._settings.poll_interval if often else self._settings.idle_poll_interval)
            if now >= due:
                self._last_look = now
                self._rested = self._rested or not often
                return
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._came.wait()

    def due_check(self) -> Check | None:
        """Return which check is due, if any, and count it as done."""
        now, settings = _now(), self._settings
        often = now < self._attended_until
        if now - self._last_check < (settings.check_interval if often else settings.whole_check_interval):
            return None
        check = Check.LAST
        if now - self._last_whole >= settings.whole_check_interval:
            check = Check.WHOLE
            self._last_whole = now
        elif self._rested or self._is_new() or now - self._last_list >= settings.idle_check_interval:
            check = Check.NEW
        self._last_check = now
        if check is not Check.LAST:
            self._last_list = now
            self._rested = False
        return check


def _now() -> float:
    return asyncio.get_running_loop().time()
