"""`python -m tests.interop.upgrade_trial SOURCES`: devices that an older gateway has left apart, and this one.

SOURCES is a working copy of the older program. That gateway is in the middle of scenarios of `claims_scenarios` until
nothing changes any more. Then this program goes on with its store, while a second old gateway still runs on it, and the
devices meet again. It prints how the scenarios stand before and at the end, how many blocks this program has requested,
and what the second gateway says.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.interop.claims_middles import GatewayMiddle
from tests.interop.claims_scenarios import SCENARIOS, Scenario
from tests.interop.claims_trial import MiddleTrial, Outcome
from tests.peers.debian import syncthing_binary
from tests.peers.gateway import Gateway, with_settings
from untrusted_s3.settings import ClaimSettings, Settings
from untrusted_s3.store.embedded.server import EmbeddedStore

CHOSEN = ("edits-A-A", "edits-A-B", "delete-A-B", "new-A", "forgotten")
CHANCE = 3.0


def program_of(sources: Path) -> list[str]:
    """Return the command of another working copy of the program."""
    code = f"import runpy, sys; sys.path.insert(0, {str(sources)!r}); runpy.run_module('untrusted_s3', alter_sys=True)"
    return [sys.executable, "-c", code.replace("alter_sys", "run_name='__main__', alter_sys")]


class UpgradeTrial(MiddleTrial):
    """The scenarios, after the last phase of which comes one without changes. `upgrade` is called before that."""

    upgrade: Callable[[Mapping[str, Outcome]], None]

    def change(self, phase: int) -> None:
        if phase == max(len(scenario.phases) for scenario in self.scenarios.values()) - 1:
            self.upgrade(self._outcomes())
        super().change(phase)


def told(outcomes: Mapping[str, Outcome], scenarios: Mapping[str, Scenario]) -> None:
    """Print how scenarios stand."""
    for name, outcome in outcomes.items():
        equal = scenarios[name].is_expected(outcome.trees, directly=False)
        percent = min(view.least.percent for view in outcome.views.values())
        print(f"  {name}: {'as directly' if equal else 'apart'}, {percent:.0f} %, {outcome.trees}")


def play(binary: Path, sources: Path, home: Path, chosen: Iterable[Scenario], *, last_first: bool) -> None:
    """Play scenarios once, and print what comes of it."""
    longest = max(len(scenario.phases) for scenario in chosen)
    scenarios = {
        one.name: replace(one, phases=[*one.phases, *[{}] * (longest + 1 - len(one.phases))]) for one in chosen
    }
    settings = Settings(claims=ClaimSettings(chance=CHANCE, interval=CHANCE / 4))
    with EmbeddedStore.start(home / "store") as store, ExitStack() as stack:
        second, gateway = (Gateway(home / name, store, "upgrade") for name in ("second", "gateway"))
        for one in (gateway, second):
            one.program = program_of(sources)
            stack.callback(one.kill)
        gateway.start()

        def upgrade(outcomes: Mapping[str, Outcome]) -> None:
            print("before:")
            told(outcomes, scenarios)
            second.start()
            gateway.stop()
            gateway.program = with_settings(settings)
            gateway.start()

        trial = UpgradeTrial(binary, home, scenarios.values(), GatewayMiddle(gateway), last_first=last_first)
        trial.upgrade = upgrade
        trial.stuck_seconds = CHANCE * 1.25 + 2.5
        outcomes = trial.run()
        print("at the end:")
        told(outcomes, scenarios)
        received = gateway.http_get("/metrics")[1].decode()
        print(*(line for line in received.splitlines() if line.startswith("untrusted_s3_blocks_received_total")))
        for folder in second.status()["folders"]:
            print("the other gateway:", folder["id"], folder["state"], folder["error"])


def main() -> None:
    """Play the scenarios with either device first."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.upgrade_trial", description=__doc__)
    parser.add_argument("sources", type=Path)
    parser.add_argument("--version", default="1.29.5")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if scenario.name in CHOSEN]
    for last_first in (False, True):
        print(f"{'the last' if last_first else 'the first'} device comes first")
        with tempfile.TemporaryDirectory(prefix="upgrade-") as home:
            binary = syncthing_binary(options.version)
            play(binary, options.sources.absolute(), Path(home), chosen, last_first=last_first)


if __name__ == "__main__":
    main()
