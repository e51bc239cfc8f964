"""The gateway under test as a process on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server


@pytest.fixture
def gateway(s3_server: S3Server, bucket_prefix: str, tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway on an empty store."""
    with Gateway(tmp_path / "gateway", s3_server, bucket_prefix) as running:
        yield running
