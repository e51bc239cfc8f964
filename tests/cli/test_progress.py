"""Progress of long commands."""

from __future__ import annotations

import asyncio
import io

import pytest

from untrusted_s3.cli.progress import ProgressLine, duration_text, shown_progress
from untrusted_s3.cli.terminal import LiveLine
from untrusted_s3.progress import Progress
from untrusted_s3.units import MIB


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_are_those_of_the_last_seconds() -> None:
    clock, progress = Clock(), Progress(total_files=1000, total_bytes=900 * MIB)
    line = ProgressLine(progress, "restored", clock)
    assert line.text() == "restored 0 of 1,000 files, 0 B of 900 MiB"
    clock.now, progress.files, progress.bytes = 102.0, 20, 20 * MIB
    assert line.text() == "restored 20 of 1,000 files, 20.0 MiB of 900 MiB, 10.0 MiB/s, 1:28 left"
    for second in range(1, 13):  # ten times as fast from now on
        clock.now, progress.bytes = 102.0 + second, (20 + 70 * second) * MIB
        text = line.text()
    assert text.endswith(", 860 MiB of 900 MiB, 70.0 MiB/s, 0:01 left")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


async def test_without_a_terminal_a_plain_line_comes_now_and_then() -> None:
    stream = io.StringIO()
    async with shown_progress(Progress(3, 5, 4, 10), "verified", LiveLine(stream), plain_interval=0.0):
        while stream.getvalue().count("\n") < 2:
            await asyncio.sleep(0)
    assert set(stream.getvalue().splitlines()) == {"verified 3 of 4 files, 5 B of 10 B"}


async def test_on_a_terminal_the_line_goes_away_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    async with shown_progress(Progress(3, 5, 4, 10), "verified", LiveLine(stream), live_interval=0.0):
        while "verified" not in stream.getvalue():
            await asyncio.sleep(0)
    assert "verified 3 of 4 files" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")
