"""Some of the schedules. `python -m tests.garbage` plays as many as one likes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import structlog

from tests.garbage.checked_store import EntryWithoutObjectError
from tests.garbage.world import play
from untrusted_s3.store.garbage import GARBAGE_RULES, GarbageRules

EXPECTED = {"objects deleted", "candidates that were named again", "kept out", "gone back", "crashes"}


@pytest.mark.parametrize("first", range(1, 51, 10))
def test_what_the_log_can_tell_has_its_objects_and_nothing_else_stays(first: int) -> None:
    with structlog.testing.capture_logs():
        for seed in range(first, first + 10):
            play(seed)


def test_the_schedules_come_to_what_they_are_about() -> None:
    happened: Counter[str] = Counter()
    with structlog.testing.capture_logs():
        for seed in range(1, 101):
            happened += play(seed, rests=False)
            if all(happened[name] for name in EXPECTED):
                break
    assert not [name for name in EXPECTED if not happened[name]]


@pytest.mark.parametrize("seed", [1, 2, 35, 36, 53])
def test_cheap_schedules_are_the_same(seed: int) -> None:
    """Without files, checks and asyncio's loop, everything happens as with them."""
    with structlog.testing.capture_logs():
        assert play(seed) == play(seed, cheap=False)


@pytest.mark.parametrize("rules", [replace(GARBAGE_RULES, grace=0.0)])
def test_the_schedules_find_wrong_rules(rules: GarbageRules) -> None:
    with structlog.testing.capture_logs(), pytest.raises(EntryWithoutObjectError):
        for seed in range(1, 201):
            play(seed, rules, rests=False)
