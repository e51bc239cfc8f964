"""Shrinking a schedule that fails, and telling it."""

from __future__ import annotations

from collections.abc import Callable

from tests.claims.checks import describe, run
from tests.claims.schedules import Schedule
from tests.claims.world import MiddleFactory


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Drop actions as long as it fails."""
    again = True
    while again:
        again = False
        for number in reversed(range(len(schedule.actions))):
            actions = schedule.actions[:number] + schedule.actions[number + 1 :]
            shorter = schedule.but(actions=actions)
            if fails(shorter):
                schedule = shorter
                again = True
    return schedule


def story(schedule: Schedule, middles: MiddleFactory) -> str:
    """Return what happens in a schedule and what is broken at its end, for a person."""
    lines = [f"device {number}: {kind}, Syncthing {made}" for number, (kind, made) in enumerate(schedule.devices, 1)]
    broken = run(schedule, middles, lines.append)
    for invariant, details in broken.items():
        lines += [invariant, *(f"    {detail}" for detail in details)]
    lines += ["", "In short:", *map(describe, schedule.actions)]
    return "\n".join(lines)
