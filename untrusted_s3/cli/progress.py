"""Progress of a long command: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from untrusted_s3.cli.output import size_text
from untrusted_s3.cli.terminal import LiveLine

if TYPE_CHECKING:
    from untrusted_s3.vault.progress import Progress

_LIVE_INTERVAL = 0.25
_PLAIN_INTERVAL = 15.0
_WINDOW = 10.0  # seconds over which the rate is taken


class ProgressLine:
    """One line about a Progress. `clock` gives seconds."""

    def __init__(self, progress: Progress, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`verb` is what has been done to the files, as in "restored"."""
        self._progress = progress
        self._verb = verb
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), progress.bytes)])

    def text(self) -> str:
        """Files, bytes, the rate of the last seconds, and the time that is left at that rate."""
        now, progress = self._clock(), self._progress
        self._samples.append((now, progress.bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:
            self._samples.popleft()
        parts = [
            f"{self._verb} {progress.files:,} of {progress.total_files:,} files",
            f"{size_text(progress.bytes)} of {size_text(progress.total_bytes)}",
        ]
        begun, before = self._samples[0]
        rate = (progress.bytes - before) / (now - begun) if now > begun else 0.0
        if rate > 0:
            left = max(progress.total_bytes - progress.bytes, 0) / rate
            parts += [f"{size_text(rate)}/s", f"{duration_text(left)} left"]
        return ", ".join(parts)


@contextlib.asynccontextmanager
async def shown_progress(progress: Progress, verb: str, live_line: LiveLine) -> AsyncIterator[None]:
    """Shows it on `live_line`'s stream for as long as the context lasts."""
    shower = asyncio.create_task(_show(ProgressLine(progress, verb), live_line))
    try:
        yield
    finally:
        shower.cancel()
        await asyncio.wait([shower])


async def _show(line: ProgressLine, live_line: LiveLine) -> None:
    if not live_line.isatty():
        while True:
            await asyncio.sleep(_PLAIN_INTERVAL)
            live_line.write(line.text() + "\n")
            live_line.flush()
    try:
        while True:
            await asyncio.sleep(_LIVE_INTERVAL)
            live_line.show(line.text())
    finally:
        live_line.show("")


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03 or 0:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
