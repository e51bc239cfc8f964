"""The time of day by the store's clock.

Gateways on one store share its clock, so what they write into the log is in one order, whatever their own clocks say.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from untrusted_s3.store.s3_errors import parse_date

# `Date` has whole seconds, and an answer takes a while: smaller differences are no news.
_NOISE: Final = 2.0


class StoreClock:
    """Follows the store's clock by the `Date` headers of its answers; until the first one it is the local clock.

    May be used from several threads.
    """

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        """`local` gives seconds since 1970 UTC."""
        self._local = local
        self._ahead = 0.0  # by how much the store's clock is ahead of the local one
        self._known = False
        self._parsed: tuple[str | None, datetime | None] = (None, None)  # the last header, which many answers have

    def __call__(self) -> float:
        """Return the time of day in seconds since 1970 UTC."""
        return self._local() + self._ahead

    def note(self, date_header: str | None) -> None:
        """Take the `Date` header of an answer that has just arrived. One that is missing or invalid says nothing."""
        header, date = self._parsed
        if header != date_header:
            date = parse_date(date_header)
            self._parsed = (date_header, date)
        if date is None:
            return
        ahead = date.timestamp() + 0.5 - self._local()
        if not self._known or abs(ahead - self._ahead) > _NOISE:
            self._ahead, self._known = ahead, True
