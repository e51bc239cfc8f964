"""Images of an embedded store's data folder, taken while everything runs and put back later (store_images.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.store_images import Images, Plan
from tests.peers.debian import SyncthingVersion

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    ("version", "seed", "plans"),
    [
        ("1.29.5", 1, [Plan("paused", True, True, "absent"), Plan("torn", False, False, "runs on")]),
        ("1.19.2", 2, [Plan("torn", True, True, "starts again"), Plan("power cut", False, True, "absent")]),
    ],
    ids=["paused, torn", "torn, power cut"],
)
def test_an_image_is_put_back(
    weed: Path,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
    version: SyncthingVersion,
    seed: int,
    plans: list[Plan],
) -> None:
    with Images(tmp_path, syncthing_binaries[version], seed) as images:
        for plan in plans:
            images.play(plan)
        images.check_with_commands()
