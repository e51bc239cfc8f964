"""`python -m tests.fuzz TARGET --executions 10000000 --seed 1`: give a reader damaged inputs. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from tests.fuzz.catalog import TARGETS
from tests.fuzz.engine import Report, file_name, fuzz

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """Fuzz one target. Nothing in the corpus of the repository is changed, unless the options say so."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--executions", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=int, default=0, help="add so many found inputs to the corpus")
    options = parser.parse_args()
    corpus = CORPUS / options.target
    known = [path.read_bytes() for path in sorted(corpus.glob("*"))]
    found = Path(tempfile.mkdtemp(prefix=f"fuzz-{options.target}-"))

    def say(report: Report) -> None:
        save(report, found)
        print(line(options.target, options.seed, report), flush=True)

    report = fuzz(TARGETS[options.target], options.executions, options.seed, corpus=known, say=say)
    say(report)
    if options.keep:
        corpus.mkdir(exist_ok=True)
        for data in sorted(report.kept.values(), key=len)[: options.keep]:
            (corpus / file_name(data)).write_bytes(data)
    for find, (data, text) in report.finds.items():
        print(f"{find}: {found / file_name(data)}\n{text}")
    return 1 if report.finds else 0


def save(report: Report, folder: Path) -> None:
    """Write what was found and kept into a folder."""
    for data, _ in report.finds.values():
        (folder / file_name(data)).write_bytes(data)
    (folder / "kept").mkdir(exist_ok=True)
    for data in report.kept.values():
        (folder / "kept" / file_name(data)).write_bytes(data)


def line(target: str, seed: int, report: Report) -> str:
    """Return a report as one line of JSON."""
    value = {
        "target": target,
        "seed": seed,
        "executions": report.executions,
        "seconds": round(report.seconds, 1),
        "cpu_seconds": round(sum(os.times()[:2]), 1),
        "kept": len(report.kept),
        "slowest_seconds": round(report.slowest, 3),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "finds": list(report.finds),
    }
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
