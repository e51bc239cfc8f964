"""Prints what becomes of each kind of damage: the tables of docs/keeping-a-store-healthy.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import structlog

from tests.check import record_trial, trial


def print_table(
    things: Sequence[str], damages: Sequence[str], heads: Sequence[str], play: Callable[[str, str, int], str]
) -> None:
    """Play everything and print it. Damages that end alike share a row."""
    print("| what | damage |", " | ".join(heads), "|")
    print("|---" * (2 + len(heads)) + "|")
    for what in things:
        rows: dict[tuple[str, ...], list[str]] = {}
        for damage in damages:
            ends = tuple(play(what, damage, number) for number in range(len(heads)))
            rows.setdefault(ends, []).append(damage)
        for number, (ends, of_row) in enumerate(rows.items()):
            print(f"| {'' if number else what} | {', '.join(of_row)} |", " | ".join(ends), "|", flush=True)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print_table(
        trial.THINGS,
        list(trial.DAMAGES),
        [case.text for case in trial.CASES],
        lambda what, damage, number: trial.play(what, damage, trial.CASES[number]),
    )
    print()
    print_table(record_trial.THINGS, record_trial.DAMAGES, record_trial.HEADS, record_trial.play)


if __name__ == "__main__":
    main()
