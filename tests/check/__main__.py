"""Prints what becomes of each kind of damage, as a table."""

from __future__ import annotations

import logging

import structlog

from tests.check.trial import CASES, DAMAGES, THINGS, play


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print("| what | damage |", " | ".join(case.text for case in CASES), "|")
    print("|---" * (2 + len(CASES)) + "|")
    for what in THINGS:
        for damage in DAMAGES:
            ends = [play(what, damage, case) for case in CASES]
            print(f"| {what} | {damage} |", " | ".join(ends), "|", flush=True)


if __name__ == "__main__":
    main()
