"""Checks that run one after the other within a time limit, and their results."""

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
    """A check cannot be run with this Syncthing; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: The name of the check.
        needs: The names of checks that must have succeeded before.
        run: Returns what it has seen. Raises CannotRun; if the check fails, UntrustedS3Error, OSError or TimeoutError.
    """

    name: str
    needs: frozenset[str]
    run: Callable[[], str]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: The name of the check.
        status: Whether it succeeded.
        detail: What was seen, what is wrong, or why the check was not run.
        seconds: How long it took.
    """

    name: str
    status: Status
    detail: str
    seconds: float


class TimeLimit:
    """A time limit that begins now."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self.deadline = clock() + seconds
        self._seconds = seconds
        self._clock = clock

    @property
    def left(self) -> float:
        """Seconds that are left; after the end still a little, enough for an answer that is ready."""
        return max(_LEAST_SECONDS, self.deadline - self._clock())

    @property
    def is_over(self) -> bool:
        """Whether the time limit is over."""
        return self._clock() >= self.deadline

    def __str__(self) -> str:
        return f"the time limit of {self._seconds:g} s"


def run_checks(checks: Iterable[Check], limit: TimeLimit, clock: Clock = time.monotonic) -> Iterator[CheckResult]:
    """Run the checks, and yield the result of each.

    A check is not run if one that it needs did not succeed. Checks that begin after the time limit fail.
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
