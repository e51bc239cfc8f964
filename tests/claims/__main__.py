"""Plays schedules and counts those that end with something broken."""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from typing import Final

from tests.claims.checks import ALL, COMPARED, Broken, run
from tests.claims.middles import MIDDLES, several
from tests.claims.schedules import from_seed
from tests.claims.stories import shrink, story

_REPORT_INTERVAL: Final = 60.0
_SHOWN_SEEDS: Final = 10


def main() -> None:
    """Play schedules by their seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.claims", description=__doc__)
    parser.add_argument("--middle", choices=sorted(MIDDLES), default="native")
    parser.add_argument("--middles", type=int, default=1, help="how many of them")
    parser.add_argument(
        "--chain", action="store_true", help="each device reaches one of them, and they meet each other"
    )
    parser.add_argument("--compare", action="store_true", help="also with devices that are connected directly instead")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    parser.add_argument("--tell", action="store_true", help="tell the story of the first that fails, shrunk, and end")
    parser.add_argument(
        "--of", choices=[name.split(":")[0] for name in (*ALL, *COMPARED)], help="only failures of this kind"
    )
    options = parser.parse_args()
    middles = several(options.middle, options.middles)
    counted: Counter[str] = Counter()
    seeds: dict[str, list[int]] = defaultdict(list)
    began = reported = time.monotonic()

    def concerned(broken: Broken) -> bool:
        return any(name in ALL if options.of is None else name.startswith(options.of) for name in broken)

    for number in range(options.schedules):
        seed = options.seed + number
        schedule = from_seed(seed, middles=options.middles, chain=options.chain)
        broken = run(schedule, middles, compare=options.compare)
        counted.update(list(broken))
        counted["any"] += any(invariant in broken for invariant in ALL)
        for invariant in broken:
            seeds[invariant].append(seed)
        if options.tell and concerned(broken):
            short = shrink(schedule, lambda candidate: concerned(run(candidate, middles, compare=options.compare)))
            print(f"seed {seed}", story(short, middles), sep="\n")
            return
        if time.monotonic() - reported > _REPORT_INTERVAL:
            reported = time.monotonic()
            print(f"{number + 1} schedules in {reported - began:.0f} s: {dict(counted)}", flush=True)
    spent = time.monotonic() - began
    print(
        f"{options.schedules} schedules in {spent:.0f} s, {options.schedules / spent:.0f}/s, middle: {options.middle}"
    )
    for invariant in (*ALL, "any", *(COMPARED if options.compare else ())):
        share = counted[invariant] / options.schedules
        print(f"{counted[invariant]:8} {share:8.3%}  {invariant}{_of(seeds[invariant])}")


def _of(seeds: list[int]) -> str:
    return f"; seeds {', '.join(map(str, seeds[:_SHOWN_SEEDS]))}" if seeds else ""


if __name__ == "__main__":
    main()
