"""Listings: what their keys mean, and strangers skipped."""

from __future__ import annotations

from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store.layout import FolderKeys, node_key
from untrusted_s3.store.listing import list_checkpoints, list_folders, list_nodes, list_segments

KEYS = FolderKeys.of("f")


def bucket_with(*keys: str) -> MemoryBucket:
    bucket = MemoryBucket()
    for key in keys:
        bucket.objects[key] = b"body"
    return bucket


async def test_positions() -> None:
    strangers = [KEYS.segments + "notes.txt", KEYS.checkpoints + "7", KEYS.segment(3) + "/below"]
    others = [FolderKeys.of("g").segment(9), KEYS.record]
    bucket = bucket_with(KEYS.segment(1), KEYS.segment(12), KEYS.checkpoint(5), *strangers, *others)
    segments, checkpoints = await list_segments(bucket, KEYS), await list_checkpoints(bucket, KEYS)
    assert {position: item.key for position, item in segments.items()} == {1: KEYS.segment(1), 12: KEYS.segment(12)}
    assert {position: item.size for position, item in checkpoints.items()} == {5: 4}


async def test_folders() -> None:
    bucket = bucket_with(KEYS.record, FolderKeys.of("ä/ö").segment(1), "store.json", "folders/stranger")
    assert {keys async for keys in list_folders(bucket)} == {KEYS, FolderKeys.of("ä/ö")}


async def test_nodes() -> None:
    device_ids = [DeviceID(bytes(32)), DeviceID(bytes(range(32)))]
    bucket = bucket_with(*map(node_key, device_ids), "store.json")
    nodes = [node async for node in list_nodes(bucket)]
    assert sorted(node.device_id for node in nodes) == sorted(map(str, device_ids))
    assert [node.age for node in nodes] == [0.0, 0.0]
