from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import SimulatedClock
from untrusted_s3.index.segment_pace import SegmentPace
from untrusted_s3.settings import LogSettings

SETTINGS = LogSettings()


def test_a_burst_then_one_at_a_time() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(SETTINGS, clock)
    for _ in range(SETTINGS.segment_burst):
        assert pace.delay == 0
        pace.appended()
    assert pace.delay == SETTINGS.segment_pace
    clock.now += SETTINGS.segment_pace - 1
    assert pace.delay == 1
    clock.now += 1
    assert pace.delay == 0
    pace.appended()
    assert pace.delay == SETTINGS.segment_pace


def test_rest_brings_the_burst_back() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(SETTINGS, clock)
    for _ in range(SETTINGS.segment_burst + 3):
        pace.appended()
    clock.now += 1e6
    for _ in range(SETTINGS.segment_burst):
        assert pace.delay == 0
        pace.appended()
    assert pace.delay == SETTINGS.segment_pace


def test_a_day_of_changes() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(SETTINGS, clock)
    segments = 0
    while clock.now < 86_400:
        clock.now += max(pace.delay, SETTINGS.segment_interval)
        pace.appended()
        segments += 1
    assert segments <= 86_400 / SETTINGS.segment_pace + SETTINGS.segment_burst + 2


@pytest.mark.parametrize("full", [True, False])
def test_after_a_million_files_a_lone_change_waits_for_one_pace_at_most(full: bool) -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(SETTINGS, clock)
    for _ in range(1_000_000 // (SETTINGS.segment_entries if full else 60)):
        clock.now += 0.01
        pace.appended(full=full)
    assert pace.delay <= (0 if full else SETTINGS.segment_pace)
    clock.now += SETTINGS.segment_pace
    assert pace.delay == 0


def test_a_lone_change_after_much_work_is_written_within_seconds() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(SETTINGS, clock)
    for _ in range(1000):
        clock.now += pace.delay
        pace.appended()
    assert pace.lone_delay == 1
    clock.now += 1
    assert pace.lone_delay == 0 < pace.delay
    pace.appended()
    assert pace.lone_delay == pace.delay == SETTINGS.segment_pace, "not twice in a minute"
    for _ in range(int(60 / SETTINGS.segment_pace)):
        clock.now += pace.delay
        pace.appended()
    assert pace.lone_delay == 1 < pace.delay


@given(st.lists(st.tuples(st.floats(0, 60), st.sampled_from(["full", "small", "lone"])), max_size=300))
def test_small_segments_are_bounded_whatever_else_is_written(changes: list[tuple[float, str]]) -> None:
    """Full segments come as they like. Of small ones, an interval has one a pace, one a minute and a burst at most."""
    clock = SimulatedClock(0.0)
    settings = LogSettings(segment_burst=3)
    pace = SegmentPace(settings, clock)
    small: list[float] = []
    for pause, kind in changes:
        clock.now += pause
        if kind != "full":
            assert pace.lone_delay <= pace.delay <= settings.segment_pace
            clock.now += pace.delay if kind == "small" else pace.lone_delay
            small.append(clock.now)
        pace.appended(full=kind == "full")
    for number, begin in enumerate(small):
        for count, end in enumerate(small[number:], 1):
            seconds = end - begin
            assert count <= settings.segment_burst + 2 + seconds / settings.segment_pace + seconds / 60 + 1e-6
