"""Repeated requests: which failures are repeated, how often, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from tests.virtual_time import virtual_time
from untrusted_s3.errors import NoSuchKey, StoreBusy, StoreError, StoreRefused, StoreUnreachable
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.retries import retry

SETTINGS = StoreSettings(tries=4, retry_delay=0.0)


class Attempts:
    """Fails some times, then succeeds."""

    def __init__(self, failures: int, error: type[StoreError] = StoreUnreachable, seconds: float = 0.0) -> None:
        self.calls = 0
        self._failures, self._error, self._seconds = failures, error, seconds

    async def __call__(self) -> str:
        self.calls += 1
        await asyncio.sleep(self._seconds)
        if self.calls <= self._failures:
            raise self._error(f"failure {self.calls}")
        return "done"


@pytest.mark.parametrize("failures", [0, 1, 3])
async def test_failures_that_pass(failures: int) -> None:
    attempts = Attempts(failures)
    assert await retry(attempts, SETTINGS) == "done"
    assert attempts.calls == failures + 1


async def test_the_last_failure_is_reported() -> None:
    attempts = Attempts(100)
    with pytest.raises(StoreUnreachable, match="failure 4"):
        await retry(attempts, SETTINGS)
    assert attempts.calls == 4


@pytest.mark.parametrize("error", [StoreRefused, NoSuchKey])
async def test_an_answer_is_final(error: type[StoreError]) -> None:
    attempts = Attempts(100, error)
    with pytest.raises(error):
        await retry(attempts, SETTINGS)
    assert attempts.calls == 1


@virtual_time
async def test_a_store_that_hangs_is_not_asked_again() -> None:
    attempts = Attempts(100, seconds=60.0)
    with pytest.raises(StoreUnreachable):
        await retry(attempts, StoreSettings(tries=4, retry_delay=0.0, timeout=30.0))
    assert attempts.calls == 1


@virtual_time
async def test_a_store_that_answers_in_time_is_asked_again() -> None:
    attempts = Attempts(2, seconds=10.0)
    assert await retry(attempts, StoreSettings(tries=4, retry_delay=0.0, timeout=30.0)) == "done"
    assert attempts.calls == 3


@virtual_time
@pytest.mark.parametrize(("pause", "calls"), [(0.0, 3), (5.0, 3), (29.0, 1)])
async def test_the_pause_that_a_store_wants_is_kept_unless_it_is_too_long(pause: float, calls: int) -> None:
    now = asyncio.get_running_loop().time
    times: list[float] = []

    async def attempt() -> str:
        times.append(now())
        if len(times) < 3:
            raise StoreBusy("503", pause)
        return "done"

    try:
        await retry(attempt, StoreSettings(tries=4, retry_delay=0.0, timeout=30.0))
    except StoreBusy as error:
        assert error.pause == pause
    assert times == [number * pause for number in range(calls)]
