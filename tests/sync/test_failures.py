"""When files that could not be pulled are tried again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import device
from untrusted_s3.errors import BlockUnavailable, UploadLost
from untrusted_s3.index.pending import Pending
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.failures import Failures

A = device(1)
ERROR = BlockUnavailable("no")
SETTINGS = SyncSettings(kept_failures=10)


def entry(number: int, version: int = 1) -> Pending:
    return Pending(A, b"%d" % number, number, b"%d" % version, "content", 1, 1)


def tries(failures: Failures, numbers: range, seconds: float) -> list[float]:
    """Play a peer that has none of the files. Return when each pull began."""
    now, times = 0.0, []
    while now < seconds:
        for number in numbers:
            if not failures.waits(entry(number), now):
                times.append(now)
                failures.add(entry(number), "name", [A], ERROR, now)
        assert failures.next_due is not None
        now = failures.next_due
        failures.release(now)
    return times


def test_pauses_double_up_to_an_hour() -> None:
    times = tries(Failures(SETTINGS), range(1), 86_400)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == SETTINGS.max_failure_interval


def test_what_is_not_the_fault_of_peers_is_tried_more_often() -> None:
    failures, now, pauses = Failures(SETTINGS), 0.0, []
    for _ in range(10):
        failures.add(entry(1), "name", [A], UploadLost("the upload is gone"), now)
        assert failures.next_due is not None
        pauses.append(failures.next_due - now)
        now = failures.next_due
        failures.release(now)
    assert pauses == [5, 10, 20, 40, *[SETTINGS.max_pull_retry_interval] * 6]


def test_more_failures_than_are_kept_become_rare_as_well() -> None:
    failures = Failures(SETTINGS)
    times = tries(failures, range(50), 86_400)
    assert len(failures) == SETTINGS.kept_failures
    assert len([time for time in times if time > 43_200]) <= 50 * 14


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2), st.floats(0, 5000)), max_size=60))
def test_every_failure_is_released_in_time(steps: list[tuple[int, int, float]]) -> None:
    failures = Failures(SETTINGS)
    now = 0.0
    for number, version, pause in steps:
        failures.add(entry(number, version), "name", [A], ERROR, now)
        assert failures.waits(entry(number, version), now)
        assert not failures.waits(entry(number, 3), now), "another version has not failed"
        assert len(failures) <= SETTINGS.kept_failures
        now += pause
        while failures.next_due is not None and failures.next_due <= now:
            failures.release(failures.next_due)
        for failure in failures:
            assert failure.due <= now + SETTINGS.max_failure_interval
            assert failures.next_due is None or failure.due == float("-inf") or failure.due >= failures.next_due


@pytest.mark.parametrize("clear", [True, False])
def test_all_are_released(clear: bool) -> None:
    failures = Failures(SETTINGS)
    failures.add(entry(1), "name", [A], ERROR, 0)
    if clear:
        failures.clear()
    else:
        failures.release_all()
    assert not failures.waits(entry(1), 0)
    assert len(failures) == (0 if clear else 1)
    failures.add(entry(1), "name", [A], ERROR, 0)
    assert failures.next_due == (5 if clear else 10)
