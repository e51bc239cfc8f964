from __future__ import annotations

from tests.simulated import SimulatedClock
from untrusted_s3 import limits
from untrusted_s3.index.segment_pace import SegmentPace


def test_a_burst_then_one_at_a_time() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(clock)
    for _ in range(limits.SEGMENT_BURST):
        assert pace.delay == 0
        pace.appended()
    assert pace.delay == limits.SEGMENT_PACE
    clock.now += limits.SEGMENT_PACE - 1
    assert pace.delay == 1
    clock.now += 1
    assert pace.delay == 0
    pace.appended()
    assert pace.delay == limits.SEGMENT_PACE


def test_rest_brings_the_burst_back() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(clock)
    for _ in range(limits.SEGMENT_BURST + 3):
        pace.appended()
    clock.now += 1e6
    for _ in range(limits.SEGMENT_BURST):
        assert pace.delay == 0
        pace.appended()
    assert pace.delay == limits.SEGMENT_PACE


def test_a_day_of_changes() -> None:
    clock = SimulatedClock(0.0)
    pace = SegmentPace(clock)
    segments = 0
    while clock.now < 86_400:
        clock.now += max(pace.delay, limits.SEGMENT_INTERVAL)
        pace.appended()
        segments += 1
    assert segments <= 86_400 / limits.SEGMENT_PACE + limits.SEGMENT_BURST + 2
