"""The gateway under test, as a real process on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway
from untrusted_s3.store.embedded import EmbeddedStore


@pytest.fixture
def gateway(seaweedfs: EmbeddedStore, bucket_prefix: str, tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway on an empty store."""
    with Gateway(tmp_path / "gateway", seaweedfs, bucket_prefix) as running:
        yield running
