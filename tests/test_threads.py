from __future__ import annotations

import asyncio
import threading

import pytest

from tests.loops import RunAsync
from tests.waiting import PATIENCE
from untrusted_s3.threads import in_thread


async def test_results_and_errors() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    assert await in_thread(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


def test_nobody_waits_for_a_call_that_hangs(
    run_async: RunAsync,
) -> None:
    hanging, ended = threading.Event(), []

    def wait() -> None:
        hanging.wait()
        ended.append(True)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await in_thread(wait)

    run_async(give_up())
    assert ended == [], "neither the caller nor the end of the loop has waited"
    hanging.set()


async def test_many_at_once() -> None:
    gate = threading.Barrier(40)
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(in_thread(gate.wait) for _ in range(40)))
