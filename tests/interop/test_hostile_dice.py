"""An honest device beside hostile ones that roll dice, on a store that does so too; the gateway is killed meanwhile.

`python -m tests.hostile` does the same with more files, and measures time, memory and the loop's lag.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.trial import Plan, make_files, run
from tests.peers.debian import SyncthingVersion
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop


def test_an_honest_device_beside_hostile_ones(
    seaweedfs: EmbeddedStore, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path, bucket_prefix: str
) -> None:
    make_files(tmp_path / "files", 300, seed=1)
    plan = Plan(files=300, peers=True, store_faults=0.02, kills=1, seed=1)
    outcome = run(seaweedfs, syncthing_binaries["1.29.5"], tmp_path / bucket_prefix, tmp_path / "files", plan)
    print(outcome.to_json())
    assert not outcome.errors
    assert outcome.attacks["connections"] > 0 and outcome.attacks["bytes"] > 0
    assert outcome.faults > 0
    assert outcome.memory_peak - outcome.memory_before < 1.5 * outcome.budgets
