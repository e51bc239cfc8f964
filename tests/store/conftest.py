"""The real bucket of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.peers.s3_server import S3Server
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@pytest.fixture
async def bucket(s3_server: S3Server, bucket_prefix: str) -> AsyncIterator[S3Bucket]:
    """A prefix of its own in a bucket of a real S3 server."""
    opened = await S3Bucket.open(
        StoreLocation(s3_server.bucket, f"{bucket_prefix}/"),
        s3_server.endpoint_url,
        S3Credentials(s3_server.access_key, s3_server.secret_key),
    )
    yield opened
    await opened.close()
