"""`python -m tests.healing --schedules 100000 --first 1`: schedules of losses, one after the other, by their seeds."""

from __future__ import annotations

import argparse
import gc
import json
import time

import structlog

from tests.healing.world import play

_REPORT_INTERVAL = 60.0


def main() -> None:
    """Play schedules. The first that fails ends the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.healing", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    began = reported = time.monotonic()
    for number in range(options.schedules):
        play(options.first + number)
        if time.monotonic() - reported > _REPORT_INTERVAL:
            reported = time.monotonic()
            print(line(options.first, number + 1, reported - began), flush=True)
    print(line(options.first, options.schedules, time.monotonic() - began))


def line(first: int, schedules: int, seconds: float) -> str:
    """Return what was played as one line of JSON."""
    value = {
        "first": first,
        "schedules": schedules,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
    }
    return json.dumps(value)


if __name__ == "__main__":
    main()
