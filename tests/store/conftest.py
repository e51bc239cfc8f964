"""The real bucket of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from untrusted_s3.store.embedded import EmbeddedStore
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket, S3Credentials


@pytest.fixture
async def bucket(seaweedfs: EmbeddedStore, bucket_prefix: str) -> AsyncIterator[S3Bucket]:
    """A prefix of its own in a bucket of a real S3 server."""
    opened = await S3Bucket.open(
        StoreLocation(seaweedfs.bucket, f"{bucket_prefix}/"),
        seaweedfs.endpoint_url,
        S3Credentials(seaweedfs.access_key, seaweedfs.secret_key),
    )
    yield opened
    await opened.close()
