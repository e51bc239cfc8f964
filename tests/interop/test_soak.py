"""A short soak; `python -m tests.soak` runs long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.debian import SyncthingVersion
from tests.soak.soak import Least, Soak
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop


def test_a_short_soak(
    seaweedfs: EmbeddedStore, bucket_prefix: str, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    binaries = syncthing_binaries["1.29.5"], syncthing_binaries["1.19.2"]
    soak = Soak(seaweedfs, bucket_prefix, tmp_path, binaries, seed=3)
    outcome = soak.run(seconds=25, restart_interval=8, least=Least(changes=100, restarts=2, faults=10))
    print(outcome.changes, outcome.restarts, outcome.memory_of_thirds() if outcome.memory else "")
