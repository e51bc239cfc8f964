"""The store's clock."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from untrusted_s3.errors import AnswerTooShort
from untrusted_s3.store.clock import StoreClock
from untrusted_s3.store.s3_errors import refusal

NOW = 1_700_000_000.0


class Local:
    """A local clock that is wrong by `ahead` seconds."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.now, self.ahead = NOW, ahead

    def __call__(self) -> float:
        return self.now + self.ahead


@pytest.mark.parametrize("ahead", [7200.0, -7200.0, 10**9])
def test_the_time_comes_from_the_store(ahead: float) -> None:
    local = Local(ahead)
    clock = StoreClock(local)
    assert clock() == NOW + ahead, "the store has said nothing yet"
    clock.note(formatdate(NOW, usegmt=True))
    assert abs(clock() - NOW) <= 1
    local.now += 100
    assert abs(clock() - NOW - 100) <= 1


def test_a_clock_that_is_set_meanwhile() -> None:
    local = Local()
    clock = StoreClock(local)
    clock.note(formatdate(NOW, usegmt=True))
    local.ahead = 3600
    clock.note(formatdate(NOW, usegmt=True))
    assert abs(clock() - NOW) <= 1


def test_small_differences_are_no_news() -> None:
    local = Local()
    clock = StoreClock(local)
    clock.note(formatdate(NOW, usegmt=True))
    first = clock()
    clock.note(formatdate(NOW - 1, usegmt=True))
    assert clock() == first


@pytest.mark.parametrize("header", [None, "", "yesterday", "Fri, 99 Nov 2026 00:00:00 GMT"])
def test_dates_that_say_nothing(header: str | None) -> None:
    clock = StoreClock(Local())
    clock.note(header)
    assert clock() == NOW


def test_a_range_that_the_object_does_not_have() -> None:
    assert isinstance(refusal(416, "InvalidRange", "GET key"), AnswerTooShort)
