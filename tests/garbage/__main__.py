"""`python -m tests.garbage --schedules 100000 --first 1`: schedules of garbage collection, by their seeds."""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter

import structlog

from tests.garbage.world import play

_REPORT_INTERVAL = 60.0


def main() -> None:
    """Play schedules. The first that fails ends the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.garbage", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    began = reported = time.monotonic()
    happened: Counter[str] = Counter()
    seed = options.first
    for seed in range(options.first, options.first + options.schedules):
        try:
            happened += play(seed)
        except BaseException:
            print(f"seed {seed} failed", flush=True)
            raise
        if time.monotonic() - reported > _REPORT_INTERVAL:
            reported = time.monotonic()
            print(line(options.first, seed, reported - began, happened), flush=True)
    print(line(options.first, seed, time.monotonic() - began, happened))


def line(first: int, last: int, seconds: float, happened: Counter[str]) -> str:
    """Return what was played as one line of JSON."""
    value = {
        "first": first,
        "schedules": last - first + 1,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time(), 1),
        **dict(sorted(happened.items())),
    }
    return json.dumps(value)


if __name__ == "__main__":
    main()
