"""Some of the schedules. `python -m tests.healing` plays as many as one likes."""

from __future__ import annotations

import pytest
import structlog

from tests.healing.world import play

SCHEDULES = 200
# A pull ended as its folder was closed. A gateway did not hear what another one that healed the log had found lost. A
# gateway that healed the log took back what another one knew that had just healed it, too. The newer version of a file
# was no longer named as missing after the older one, which had taken its place, was lost as well. Two gateways had each
# written what the other one lost, so that a device's newer version became a dissent, which the others are offered.
FAILED_ONCE = (100497, 103374, 200840, 307292, 500030)


@pytest.mark.parametrize("first", range(1, SCHEDULES, 25))
def test_whatever_a_store_loses_is_healed_or_named(first: int) -> None:
    with structlog.testing.capture_logs():
        for seed in range(first, first + 25):
            play(seed)


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_schedule_that_failed_once(seed: int) -> None:
    with structlog.testing.capture_logs():
        play(seed)
