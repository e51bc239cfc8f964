"""`python -m tests.hostile --files 5000 --rounds 2`: how an honest device fares beside hostile ones.

Rounds in peace and hostile ones alternate. The last line is a JSON object with the figures and a verdict for each
promise: the time of the honest device, the gateway's memory, its local disk, its loop's lag, and what is stored at the
end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.hostile.trial import Outcome, Plan, make_files, run
from tests.peers.debian import syncthing_binary
from untrusted_s3.store.embedded.server import EmbeddedStore

MOST_TIME = 2.0
MOST_MEMORY = 1.5
MOST_LAG = 0.25


def main() -> int:
    """Run the trials. Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--against", choices=["peers", "store", "both"], default="peers")
    parser.add_argument("--store-faults", type=float, default=0.02, help="the share of requests answered wrongly")
    parser.add_argument("--kills", type=int, default=0, help="how often the gateway is killed in a hostile round")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="hostile-"))
    print(f"in {home}", flush=True)
    make_files(home / "files", options.files, options.seed)
    faults = options.store_faults if options.against != "peers" else 0.0
    peace: list[Outcome] = []
    hostile: list[Outcome] = []
    with EmbeddedStore.start(home / "store") as store:
        for number in range(options.rounds):
            plans = [
                Plan(options.files),
                Plan(options.files, options.against != "store", faults, options.kills, options.seed + number),
            ]
            for name, plan, outcomes in zip(("peace", "hostile"), plans, (peace, hostile), strict=True):
                binary = syncthing_binary("1.29.5")
                outcome = run(store, binary, home / f"{name}{number}", home / "files", plan)
                print(json.dumps({"round": name, "plan": str(plan), **outcome.to_json()}), flush=True)
                outcomes.append(outcome)
    summary = judge(peace, hostile, with_time=not options.kills)
    print(json.dumps({"against": options.against, "files": options.files, "seed": options.seed, **summary}))
    return 0 if all(summary["verdicts"].values()) else 1


def judge(peace: list[Outcome], hostile: list[Outcome], *, with_time: bool) -> dict[str, Any]:
    """Return the figures to compare, and whether each promise was kept."""
    quiet, troubled = (statistics.median(one.seconds for one in outcomes) for outcomes in (peace, hostile))
    growth = max(one.memory_peak - one.memory_before for one in hostile)
    budgets = max(one.budgets for one in hostile)
    lags = [one.lag_p99 for one in hostile if one.lag_p99 is not None]
    verdicts = {
        "memory": growth <= MOST_MEMORY * budgets,
        "disk": all(0 < one.pending_bytes <= one.pending_quota for one in hostile),
        "loop lag": bool(lags) and max(lags) <= MOST_LAG,
        "all is stored": not any(one.errors for one in (*peace, *hostile)),
    }
    if with_time:
        verdicts["time"] = 0 < troubled <= MOST_TIME * quiet
    return {
        "seconds_in_peace": quiet,
        "seconds_hostile": troubled,
        "ratio": round(troubled / quiet, 2) if quiet else None,
        "memory_growth_mib": growth >> 20,
        "memory_budgets_mib": budgets >> 20,
        "loop_lag_p99_seconds": max(lags, default=None),
        "loop_lag_p99_in_peace": max((one.lag_p99 or 0.0 for one in peace), default=None),
        "pending_mib": max(one.pending_bytes for one in hostile) >> 20,
        "pending_quota_mib": max(one.pending_quota for one in hostile) >> 20,
        "state_mib": max(one.state_bytes for one in hostile) >> 20,
        "verdicts": verdicts,
    }


if __name__ == "__main__":
    sys.exit(main())
