"""A bare client of an embedded store, and a look at its process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from untrusted_s3.store.embedded.server import EmbeddedStore

BODY = os.urandom(100_000)


def client(store: EmbeddedStore, secret_key: str | None = None) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=secret_key or store.secret_key,
        region_name="us-east-1",
        config=Config(
            proxies={},
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def put(store: EmbeddedStore, key: str, body: bytes = BODY) -> None:
    client(store).put_object(Bucket=store.bucket, Key=key, Body=body)


def get(store: EmbeddedStore, key: str) -> bytes:
    body: bytes = client(store).get_object(Bucket=store.bucket, Key=key)["Body"].read()
    return body


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
