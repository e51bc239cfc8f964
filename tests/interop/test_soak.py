"""A short soak; `python -m tests.soak` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.debian import SyncthingVersion
from tests.soak.soak import Soak
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop


def test_a_short_soak(
    seaweedfs: EmbeddedStore, bucket_prefix: str, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    binaries = syncthing_binaries["1.29.5"], syncthing_binaries["1.19.2"]
    outcome = Soak(seaweedfs, bucket_prefix, tmp_path, binaries, seed=3).run(seconds=40, restart_interval=9)
    print(outcome.changes, outcome.restarts, outcome.memory_of_thirds() if outcome.memory else "")
    assert outcome.changes.total() > 100
    assert outcome.restarts.total() >= 2
    assert outcome.faults > 10
