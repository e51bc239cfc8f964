"""Listings of the bucket by what keys mean. A key that has not the expected form is skipped: it is not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.layout import FolderKeys


@dataclass(frozen=True, slots=True)
class Node:
    """The heartbeat of a gateway.

    Attributes:
        device_id: The gateway's device ID, as its key states it.
        age: Seconds since the heartbeat was written, by the store's clock.
    """

    device_id: str
    age: float


async def list_segments(bucket: Bucket, keys: FolderKeys, after: int = 0) -> dict[int, ObjectSummary]:
    """Return all log segments of a folder after a position, by their positions. Raises StoreError."""
    found = {}
    async for item in bucket.list(keys.segments, keys.segment(after)):
        if (position := keys.segment_position(item.key)) is not None and position > after:
            found[position] = item
    return found


async def list_checkpoints(bucket: Bucket, keys: FolderKeys) -> dict[int, ObjectSummary]:
    """Return all checkpoints of a folder by their positions. Raises StoreError."""
    found = {}
    async for item in bucket.list(keys.checkpoints):
        if (position := keys.checkpoint_position(item.key)) is not None:
            found[position] = item
    return found


async def list_folders(bucket: Bucket) -> AsyncIterator[FolderKeys]:
    """Yield the keys of every folder in the store. Raises StoreError."""
    async for directory in bucket.list_directories(layout.FOLDERS):
        yield FolderKeys(directory)


async def list_nodes(bucket: Bucket) -> AsyncIterator[Node]:
    """Yield the heartbeats of all gateways. Raises StoreError."""
    async for item in bucket.list(layout.NODES):
        yield Node(layout.node_name(item.key), item.age)
