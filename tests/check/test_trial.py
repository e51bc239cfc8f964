"""Samples of the table of docs/keeping-a-store-healthy.md."""

from __future__ import annotations

import pytest

from tests.check.trial import CASES, Case, play

WITH_DEVICE, TWO_WITH_DEVICE, ONE_ALONE, _, NOBODY = CASES
SAMPLES = [
    ("object", "a bit", WITH_DEVICE, "by itself"),
    ("object", "exchanged", TWO_WITH_DEVICE, "by itself"),
    ("object", "deleted", ONE_ALONE, "repair --from"),
    ("checkpoint", "an older one", WITH_DEVICE, "repair"),
    ("segment that none covers", "cut", ONE_ALONE, "repair"),
    ("segment that none covers", "a bit", NOBODY, "repair"),
]


@pytest.mark.parametrize(("what", "damage", "case", "end"), SAMPLES)
def test_the_end(what: str, damage: str, case: Case, end: str) -> None:
    assert play(what, damage, case) == end
