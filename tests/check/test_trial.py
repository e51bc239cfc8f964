"""The tables of docs/keeping-a-store-healthy.md: some of their cells are played, and all are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check import record_trial, trial
from untrusted_s3.replication.kinds import OF_STORE, of_folder

PAGE = Path(__file__).parents[2] / "docs" / "keeping-a-store-healthy.md"


def table(heads: list[str]) -> dict[tuple[str, str], list[str]]:
    """Return the ends of each kind of damage in the table of the page that has these columns."""
    found: dict[tuple[str, str], list[str]] = {}
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    head = f"| what | damage | {' | '.join(heads)} |"
    assert any(line == head for line in lines), f"the page has no table with the columns {heads}"
    next(lines)
    what = ""
    for line in lines:
        if not line.startswith("|"):
            break
        first, damages, *ends = [cell.strip() for cell in line.strip("|").split("|")]
        what = first or what
        for damage in damages.split(", "):
            found[what, damage] = ends
    return found


OF_LOG = table([case.text for case in trial.CASES])
OF_RECORDS = table(list(record_trial.HEADS))
SAMPLES = [
    ("object", "a bit", 0),
    ("object", "exchanged", 1),
    ("object", "deleted", 2),
    ("checkpoint", "an older one", 0),
    ("segment that none covers", "cut", 2),
    ("segment that none covers", "a bit", 4),
    ("last segment", "exchanged", 0),
]
RECORD_SAMPLES = [
    ("record of a folder", "cut", 0),
    ("record of a folder", "exchanged", 2),
    ("record of a device", "a bit", 2),
    ("record of a gateway", "cut", 0),
    ("rules of `keep` of a folder", "a bit", 2),
    ("record of a scrub", "cut", 0),
    ("kept state", "a bit", 2),
    ("list of present objects", "cut", 2),
    ("last look for garbage", "a bit", 2),
]


def test_nothing_is_left_out() -> None:
    assert set(OF_LOG) == {(what, damage) for what in trial.THINGS for damage in trial.DAMAGES}
    assert set(record_trial.PLACES) == {*OF_STORE, *of_folder(record_trial.FIRST)}, "there is another kind of key"
    assert {*trial.THINGS, *record_trial.THINGS} == {one for some in record_trial.PLACES.values() for one in some}
    assert set(OF_RECORDS) == {(what, damage) for what in record_trial.THINGS for damage in record_trial.DAMAGES}


@pytest.mark.parametrize(("what", "damage", "column"), SAMPLES)
def test_the_end(what: str, damage: str, column: int) -> None:
    assert trial.play(what, damage, trial.CASES[column]) == OF_LOG[what, damage][column]


@pytest.mark.parametrize(("what", "damage", "column"), RECORD_SAMPLES)
def test_the_end_of_records(what: str, damage: str, column: int) -> None:
    assert record_trial.play(what, damage, column) == OF_RECORDS[what, damage][column]
