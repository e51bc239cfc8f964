"""`python -m tests.soak --minutes 30 --seed 1`: a soak test with all its figures. If it fails, its folder stays."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.peers.debian import syncthing_binary
from tests.soak.soak import Soak
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.units import MIB

_MOST_GROWTH = 1.2


def main() -> None:
    """Run the soak test. Fail if anything is wrong at its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--restart-interval", type=float, default=120, metavar="SECONDS")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {options.seed}, in {home}", flush=True)
    with EmbeddedStore.start(home / "store") as store:
        binaries = syncthing_binary("1.29.5"), syncthing_binary("1.19.2")
        soak = Soak(store, "soak", home, binaries, options.seed)
        outcome = soak.run(60 * options.minutes, options.restart_interval, lambda line: print(line, flush=True))
    print(f"changes: {dict(outcome.changes.most_common())}")
    print(f"restarts: {dict(outcome.restarts)}; {outcome.faults} faults in {outcome.requests} requests")
    print(f"{outcome.files} files, {outcome.conflicts} conflict copies")
    print(f"all equal {outcome.settled_after:.1f} s after the faults")
    medians = outcome.memory_of_thirds()
    print("resident memory, median of each third: " + ", ".join(f"{size / MIB:.0f} MiB" for size in medians))
    assert medians[-1] <= _MOST_GROWTH * medians[0], "memory grows"


if __name__ == "__main__":
    main()
