from __future__ import annotations

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
