"""Devices that make conflicting changes and meet only the gateway end as if they were connected directly.

`make claims` plays all scenarios with each version of Syncthing, directly and with a native untrusted device, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.interop.claims_scenarios import AWAY, SCENARIOS
from tests.interop.claims_trial import play_with_gateways
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from untrusted_s3.settings import ClaimSettings, Settings
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

CHANCE: Final = 5.0
# Of the older version only what shows the trouble best: the file that wins has the smaller number.
CHOSEN: Final[Mapping[SyncthingVersion, list[str]]] = {
    "1.19.2": ["edits-A-A", "delete-A-B"],
    "1.29.5": [scenario.name for scenario in SCENARIOS if not {AWAY, "C"} & set(scenario.devices)],
}


@pytest.mark.parametrize("version", CHOSEN)
def test_the_end_is_that_of_a_direct_connection(
    version: SyncthingVersion,
    syncthing_binaries: dict[SyncthingVersion, Path],
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    tmp_path: Path,
) -> None:
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in CHOSEN[version]]
    settings = Settings(claims=ClaimSettings(chance=CHANCE, interval=CHANCE / 4))
    with Gateway(tmp_path / "gateway", seaweedfs, bucket_prefix, settings=settings) as gateway:
        outcomes = play_with_gateways(
            syncthing_binaries[version], tmp_path, scenarios, gateway, last_first=True, chance=1.25 * CHANCE
        )
    wrong = {
        scenario.name: outcome
        for scenario in scenarios
        if not (outcome := outcomes[scenario.name]).complete or not scenario.is_expected(outcome.trees, directly=False)
    }
    assert not wrong
