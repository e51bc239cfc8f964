"""Checks that are run one after the other within a time limit, and what comes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from untrusted_s3.errors import UntrustedS3Error

Status = Literal["ok", "failed", "not run"]
Clock = Callable[[], float]

_LEAST_SECONDS = 1.0


class CannotRun(Exception):
    """What is tried gives no way to run a check; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Check:
    """`run` gives what it has seen, or raises CannotRun, or an error of ours, OSError or TimeoutError where something
    is wrong. It needs that the checks named in `needs` were well."""

    name: str
    needs: frozenset[str]
    run: Callable[[], str]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check. `detail` says what was seen, what is wrong or why it was not run; `seconds` it took."""

    name: str
    status: Status
    detail: str
    seconds: float


class TimeLimit:
    """A number of seconds from now on."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self.deadline = clock() + seconds
        self._seconds = seconds
        self._clock = clock

    @property
    def left(self) -> float:
        """Seconds; after the end still a little, enough for what is there already."""
        return max(_LEAST_SECONDS, self.deadline - self._clock())

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._clock() >= self.deadline

    def __str__(self) -> str:
        return f"the time limit of {self._seconds:g} s"


def run_checks(checks: Iterable[Check], limit: TimeLimit, clock: Clock = time.monotonic) -> Iterator[CheckResult]:
    """Runs the checks and gives the result of each as soon as it is there.

    A check that needs one that was not well is not run. After the time limit all that is left has failed.
    """
    missed: set[str] = set()
    for check in checks:
        started = clock()
        status, detail = _run(check, missed, limit)
        if status != "ok":
            missed.add(check.name)
        yield CheckResult(check.name, status, detail, clock() - started)


def _run(check: Check, missed: set[str], limit: TimeLimit) -> tuple[Status, str]:
    if limit.is_over:
        return "failed", f"{limit} is over"
    if check.needs & missed:
        return "not run", f"needs: {', '.join(sorted(check.needs & missed))}"
    try:
        return "ok", check.run()
    except CannotRun as reason:
        return "not run", str(reason)
    except (UntrustedS3Error, OSError, TimeoutError) as error:
        detail = str(error) or type(error).__name__
        return "failed", f"{limit} is over: {detail}" if limit.is_over else detail
