"""The order of checks, the consequences of a failed one, and the time limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from untrusted_s3.compat.checks import CannotRun, Check, TimeLimit, run_checks
from untrusted_s3.errors import CheckFailed, SyncthingFailed


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def raising(error: Exception) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def plan(*checks: tuple[str, str, Callable[[], str]]) -> list[Check]:
    return [Check(name, frozenset(needs.split()), run) for name, needs, run in checks]


def test_checks_that_need_a_failed_one_are_not_run() -> None:
    checks = plan(
        ("a", "", lambda: "seen"),
        ("b", "a", raising(CheckFailed("wrong"))),
        ("c", "b a", raising(AssertionError("must not run"))),
        ("d", "c", raising(AssertionError("must not run"))),
        ("e", "a", lambda: "seen too"),
    )
    results = list(run_checks(checks, TimeLimit(10)))
    assert [(result.name, result.status, result.detail) for result in results] == [
        ("a", "ok", "seen"),
        ("b", "failed", "wrong"),
        ("c", "not run", "needs: b"),
        ("d", "not run", "needs: c"),
        ("e", "ok", "seen too"),
    ]


def test_a_check_that_cannot_run_is_not_a_failure() -> None:
    results = list(run_checks(plan(("a", "", raising(CannotRun("no such command")))), TimeLimit(10)))
    assert [(result.status, result.detail) for result in results] == [("not run", "no such command")]


@pytest.mark.parametrize("error", [CheckFailed("x"), SyncthingFailed("x"), OSError("x"), TimeoutError("x")])
def test_expected_errors_are_failures(error: Exception) -> None:
    (result,) = run_checks(plan(("a", "", raising(error))), TimeLimit(10))
    assert (result.status, result.detail) == ("failed", "x")


def test_a_failure_always_says_something() -> None:
    (result,) = run_checks(plan(("a", "", raising(TimeoutError()))), TimeLimit(10))
    assert result.detail == "TimeoutError"


def test_internal_errors_are_not_failures_of_syncthing() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_checks(plan(("a", "", raising(ZeroDivisionError()))), TimeLimit(10)))


def test_checks_that_begin_after_the_time_limit_fail() -> None:
    clock = Clock()

    def waits() -> str:
        clock.now += 31
        raise SyncthingFailed("waited in vain")

    checks = plan(
        ("a", "", lambda: "seen"), ("b", "a", waits), ("c", "b", lambda: "must not run"), ("d", "a", lambda: "nor this")
    )
    results = list(run_checks(checks, TimeLimit(30, clock), clock))
    assert [(result.status, result.detail) for result in results] == [
        ("ok", "seen"),
        ("failed", "the time limit of 30 s is over: waited in vain"),
        ("failed", "the time limit of 30 s is over"),
        ("failed", "the time limit of 30 s is over"),
    ]
    assert [result.seconds for result in results] == [0, 31, 0, 0]


def test_a_check_that_succeeds_after_the_time_limit_is_ok() -> None:
    clock = Clock()

    def slow() -> str:
        clock.now += 31
        return "seen"

    results = list(run_checks(plan(("a", "", slow)), TimeLimit(30, clock), clock))
    assert results[0].status == "ok"


def test_a_little_time_is_always_left() -> None:
    clock = Clock()
    limit = TimeLimit(30, clock)
    assert (limit.left, limit.is_over) == (30, False)
    clock.now += 100
    assert limit.is_over
    assert 0 < limit.left <= 1
