"""How late the event loop is."""

from __future__ import annotations

import asyncio

import pytest

from tests.virtual_time import VirtualTimeLoop, virtual_time
from untrusted_s3.counters import Counters
from untrusted_s3.gateway.loop_lag import measure_lag


@virtual_time
async def test_a_loop_in_time_and_a_late_one() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    seen: list[float] = []
    measuring = asyncio.create_task(measure_lag(seen.append, 0.1))
    await asyncio.sleep(0.55)
    assert seen == pytest.approx([0] * 5, abs=1e-3)
    seen.clear()
    loop.now += 0.35  # a long step of another task
    await asyncio.sleep(0.01)
    measuring.cancel()
    assert seen[:3] == pytest.approx([0.3, 0.2, 0.1], abs=1e-3), "once for each interval"


def test_it_is_a_metric() -> None:
    counters = Counters()
    counters.loop_lag(0.2)
    for bound, count in (("0.1", 0.0), ("0.25", 1.0)):
        assert counters.registry.get_sample_value("untrusted_s3_loop_lag_seconds_bucket", {"le": bound}) == count
