"""`python -m tests.interop.claims_table`: how conflicting changes end, as a Markdown table.

Each scenario is played with each version of Syncthing: with the devices connected directly, with a native untrusted
device between them, with a gateway between them, and with a gateway for each of them that are connected with each
other; there the first or the last device is the first to come. It fails if a gateway does not bring the devices to the
end of a direct connection, or Syncthing no longer does what is expected.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, Self

from tests.interop.claims_scenarios import SCENARIOS, Scenario
from tests.interop.claims_trial import Outcome, play_directly, play_with_gateways, play_with_native
from tests.peers.debian import SYNCTHING_VERSIONS, syncthing_binary
from tests.peers.gateway import Gateway
from tests.simulated import fast_directory
from untrusted_s3.compat.syncthing import syncthing_version
from untrusted_s3.settings import ClaimSettings, Settings
from untrusted_s3.store.embedded.server import EmbeddedStore

Setting = Literal["direct", "native", "gateway", "chain"]
SETTINGS: Final[Mapping[Setting, str]] = {
    "direct": "connected directly",
    "native": "a native untrusted device",
    "gateway": "this gateway",
    "chain": "a gateway for each, connected with each other",
}
CHANCE = 5.0


@dataclass(frozen=True)
class Result:
    """The end of a scenario in one run.

    Attributes:
        equal: Whether each device has what it would have if they were connected directly.
        complete: Whether all devices show the one in the middle at 100 %, with nothing needed.
        percent: The least that a device shows.
        rounds: In how many rounds something changed.
    """

    scenario: str
    setting: str
    version: str
    last_first: bool
    equal: bool
    complete: bool
    percent: float
    rounds: int

    @property
    def is_wrong(self) -> bool:
        """Whether this must not be."""
        match self.setting:
            case "direct":
                return not self.equal
            case "gateway" | "chain":
                return not (self.equal and self.complete)
        return False

    @classmethod
    def of(cls, scenario: Scenario, setting: str, version: str, last_first: bool, outcome: Outcome) -> Self:
        """Judge an outcome."""
        return cls(
            scenario.name,
            setting,
            version,
            last_first,
            scenario.is_expected(
                outcome.trees, directly=setting == "direct", generation=int(version.partition(".")[0])
            ),
            outcome.complete,
            min(view.least.percent for view in outcome.views.values()),
            outcome.rounds,
        )


def play(setting: Setting, version: str, binary: Path, last_first: bool, scenarios: Iterable[Scenario]) -> list[Result]:
    """Play scenarios once."""
    scenarios = list(scenarios)
    with fast_directory() as home:  # thirty folders at once keep a disk busy
        if setting == "direct":
            outcomes = play_directly(binary, home, scenarios)
        elif setting == "native":
            outcomes = play_with_native(binary, home, scenarios, last_first=last_first)
        else:
            settings = Settings(claims=ClaimSettings(chance=CHANCE, interval=CHANCE / 4))
            with ExitStack() as stack:
                store = stack.enter_context(EmbeddedStore.start(home / "store"))
                gateways = [
                    stack.enter_context(Gateway(home / bucket, store, bucket, settings=settings))
                    for bucket in (("one", "other") if setting == "chain" else ("claims",))
                ]
                outcomes = play_with_gateways(
                    binary, home, scenarios, *gateways, last_first=last_first, chance=1.25 * CHANCE
                )
    return [Result.of(one, setting, version, last_first, outcomes[one.name]) for one in scenarios]


def table(results: Iterable[Result]) -> str:
    """Return the table."""
    found: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        found[(result.scenario, result.setting)].append(result)
    settings = [setting for setting in SETTINGS if any(key[1] == setting for key in found)]
    lines = [
        f"| what happens | {' | '.join(SETTINGS[setting] for setting in settings)} |",
        "|---" * (1 + len(settings)) + "|",
    ]
    for scenario in SCENARIOS:
        if not any(key[0] == scenario.name for key in found):
            continue
        cells = [_cell(scenario, setting, found[(scenario.name, setting)]) for setting in settings]
        lines.append(f"| {scenario.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scenario: Scenario, setting: str, results: list[Result]) -> str:
    if not results:
        return ""
    if setting == "direct":
        return _end(scenario) if all(result.equal for result in results) else "something unexpected"
    apart = sum(not result.equal for result in results)
    stuck = [result for result in results if not result.complete]
    if not apart and not stuck:
        return "as directly"
    said = [f"apart in {apart} of {len(results)} runs"] if apart else ["as directly"]
    if stuck:
        least = min(result.percent for result in stuck)
        said.append(f"stuck at {least:.0f} % in {len(stuck)}" + ("" if apart else f" of {len(results)} runs"))
    return ", ".join(said)


def _end(scenario: Scenario) -> str:
    tree = scenario.end
    ends = ", ".join(f"`{path}`: {text}" for path, text in tree.items() if path != "other")
    for device, own in scenario.send_only.items():
        if own != tree:
            ends += "; " + f"{device} " + ", ".join(f"`{path}`: {text}" for path, text in own.items())
    return ends or "nothing"


def main() -> None:
    """Play, note the results, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.claims_table", description=__doc__)
    parser.add_argument("--results", type=Path, metavar="FILE", help="add to the results there, and show all of them")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="only these")
    parser.add_argument("--version", choices=SYNCTHING_VERSIONS, action="append", help="only these")
    parser.add_argument("--binary", type=Path, help="another Syncthing instead")
    parser.add_argument("--scenario", choices=[one.name for one in SCENARIOS], action="append", help="only these")
    parser.add_argument("--runs", type=int, default=1, help="how often; with 0, the table of earlier runs is printed")
    options = parser.parse_args()
    scenarios = [one for one in SCENARIOS if not options.scenario or one.name in options.scenario]
    if options.binary is not None:
        binaries = {syncthing_version(options.binary).removeprefix("v"): options.binary}
    else:
        binaries = {version: syncthing_binary(version) for version in options.version or SYNCTHING_VERSIONS}
    results = []
    for _ in range(options.runs):
        for version, binary in binaries.items():
            for setting in options.setting or SETTINGS:
                for last_first in [False] if setting == "direct" else [False, True]:
                    played = play(setting, version, binary.absolute(), last_first, scenarios)
                    results += played
                    if options.results is not None:
                        with options.results.open("a") as file:
                            file.writelines(json.dumps(asdict(result)) + "\n" for result in played)
    shown = results
    if options.results is not None:
        shown = [Result(**json.loads(line)) for line in options.results.read_text().splitlines()]
    print(table(shown))
    wrong = [result for result in results if result.is_wrong]
    for result in wrong:
        print(result, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
