"""Listings of the bucket by what keys mean. A key that has not the expected form is skipped: it is not ours.

What is kept of a listing is bounded, whatever the store lists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, TypeVar

from untrusted_s3.errors import AnswerTooLong
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.positions import Positions

Item = TypeVar("Item")

# One segment every 5 seconds and one more a minute, which is the most over long times, for 2.4 years.
MAX_SEGMENTS: Final = 2**24
MAX_GAPS: Final = 100_000
MAX_CHECKPOINTS: Final = 50_000
# Devices, gateways, or folders.
MAX_RECORDS: Final = 100_000
# A healing writes one, or a few after a very large loss, and is repeated with growing pauses.
MAX_LOSSES: Final = 1000


@dataclass(frozen=True, slots=True)
class Node:
    """The heartbeat of a gateway.

    Attributes:
        device_id: The gateway's device ID, as its key states it.
        age: Seconds since the heartbeat was written, by the store's clock.
    """

    device_id: str
    age: float


async def up_to(most: int, items: AsyncIterator[Item], what: str) -> AsyncIterator[Item]:
    """Yield items of a listing. Raises AnswerTooLong, which names `what`, when there are more than `most`."""
    count = 0
    async for item in items:
        count += 1
        if count > most:
            raise AnswerTooLong(f"the store lists more than {most} keys below {what}")
        yield item


async def list_segments(bucket: Bucket, keys: FolderKeys, after: int = 0, *, most: int = MAX_SEGMENTS) -> Positions:
    """Return the positions of all log segments of a folder after a position.

    Raises AnswerTooLong for more than `most` or for more gaps than any log has, and another StoreError.
    """
    found = Positions()
    async for item in up_to(most, bucket.list(keys.segments, keys.segment(after)), keys.segments):
        position = keys.segment_position(item.key)
        if position is None or position <= after:
            continue
        found.add(position)
        if len(found.ranges) > MAX_GAPS:
            raise AnswerTooLong(f"the log below {keys.segments} has more than {MAX_GAPS} gaps")
    return found


async def list_checkpoints(bucket: Bucket, keys: FolderKeys) -> dict[int, ObjectSummary]:
    """Return all checkpoints of a folder by their positions.

    Raises AnswerTooLong for more than any folder has, and another StoreError.
    """
    found: dict[int, ObjectSummary] = {}
    async for item in up_to(MAX_CHECKPOINTS, bucket.list(keys.checkpoints), keys.checkpoints):
        if (position := keys.checkpoint_position(item.key)) is not None:
            found[position] = item
    return found


async def list_kept(bucket: Bucket, keys: FolderKeys) -> dict[str, tuple[int, int]]:
    """Return position and time, in seconds since 1970 UTC, of all checkpoints that are kept beyond the history, by key.

    Raises AnswerTooLong for more than any folder has, and another StoreError.
    """
    found = {}
    async for item in up_to(MAX_CHECKPOINTS, bucket.list(keys.kept), keys.kept):
        if (parsed := keys.parse_kept(item.key)) is not None:
            found[item.key] = parsed
    return found


async def list_losses(bucket: Bucket, keys: FolderKeys) -> list[str]:
    """Return what lies where the records of the losses of a folder's log are, in the order of their positions.

    Raises AnswerTooLong for more than MAX_LOSSES, and another StoreError.
    """
    return sorted([item.key async for item in up_to(MAX_LOSSES, bucket.list(keys.losses), keys.losses)])


async def list_folders(bucket: Bucket) -> AsyncIterator[FolderKeys]:
    """Yield the keys of every folder in the store. Raises StoreError."""
    async for directory in up_to(MAX_RECORDS, bucket.list_directories(layout.FOLDERS), layout.FOLDERS):
        yield FolderKeys(directory)


async def list_peers(bucket: Bucket) -> AsyncIterator[ObjectSummary]:
    """Yield what lies where the records of all accepted devices are. Raises StoreError."""
    async for item in up_to(MAX_RECORDS, bucket.list(layout.PEERS), layout.PEERS):
        yield item


async def list_usage(bucket: Bucket) -> AsyncIterator[str]:
    """Yield the keys of the records of what gateways have asked of the store. Raises StoreError."""
    async for item in up_to(MAX_RECORDS, bucket.list(layout.USAGE), layout.USAGE):
        yield item.key


async def list_nodes(bucket: Bucket) -> AsyncIterator[Node]:
    """Yield the heartbeats of all gateways. Raises StoreError."""
    async for item in up_to(MAX_RECORDS, bucket.list(layout.NODES), layout.NODES):
        yield Node(layout.node_name(item.key), item.age)
