"""Progress of a long command: a live line on a terminal, a line now and then elsewhere."""

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
    from untrusted_s3.progress import Progress

LIVE_INTERVAL = 0.25
PLAIN_INTERVAL = 15.0

_RATE_SECONDS = 10.0


class ProgressLine:
    """One line about a Progress. `verb` says what was done to the files, as in "restored"; `clock` gives seconds."""

    def __init__(self, progress: Progress, verb: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._verb = verb
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), progress.bytes)])

    def text(self) -> str:
        """Return files, bytes, the rate of the last seconds, and the time left at that rate."""
        now, progress = self._clock(), self._progress
        self._samples.append((now, progress.bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_SECONDS:
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
async def shown_progress(
    progress: Progress,
    verb: str,
    live_line: LiveLine,
    *,
    live_interval: float = LIVE_INTERVAL,
    plain_interval: float = PLAIN_INTERVAL,
) -> AsyncIterator[None]:
    """Show progress on the stream of `live_line` for as long as the context lasts.

    The intervals are those of a terminal and of any other stream, in seconds.
    """
    line = ProgressLine(progress, verb)
    async with shown_text(line.text, live_line, live_interval=live_interval, plain_interval=plain_interval):
        yield


@contextlib.asynccontextmanager
async def shown_text(
    text: Callable[[], str],
    live_line: LiveLine,
    *,
    live_interval: float = LIVE_INTERVAL,
    plain_interval: float = PLAIN_INTERVAL,
) -> AsyncIterator[None]:
    """Show what `text` returns on the stream of `live_line` for as long as the context lasts, as `shown_progress`."""
    show = _rewrite(text, live_line, live_interval) if live_line.rewrites else _append(text, live_line, plain_interval)
    shower = asyncio.create_task(show)
    try:
        yield
    finally:
        shower.cancel()
        await asyncio.wait([shower])


async def _append(text: Callable[[], str], live_line: LiveLine, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        live_line.write(text() + "\n")
        live_line.flush()


async def _rewrite(text: Callable[[], str], live_line: LiveLine, interval: float) -> None:
    try:
        while True:
            await asyncio.sleep(interval)
            live_line.show(text())
    finally:
        live_line.show("")


def duration_text(seconds: float) -> str:
    """Return hours, minutes and seconds, as in 1:02:03 or 0:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
