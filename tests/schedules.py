"""Plays schedules one after the other, by their seeds: the command line of long runs."""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

_REPORT_INTERVAL: Final = 60.0


def main(program: str, description: str | None, play: Callable[[int], Counter[str]]) -> None:
    """Play schedules, and print what has happened as lines of JSON. The first that fails ends the program.

    `play` plays the schedule of a seed and returns what is to be counted.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    began = reported = time.monotonic()
    counted: Counter[str] = Counter()

    def report(schedules: int) -> None:
        spent = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time(), 1)}
        line = {"first": options.first, "schedules": schedules, **spent, **dict(sorted(counted.items()))}
        print(json.dumps(line), flush=True)

    for number in range(options.schedules):
        try:
            counted += play(options.first + number)
        except BaseException:
            print(f"seed {options.first + number} failed", flush=True)
            raise
        if time.monotonic() - reported > _REPORT_INTERVAL:
            reported = time.monotonic()
            report(number + 1)
    report(options.schedules)
