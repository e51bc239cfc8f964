"""Listings: what their keys mean, and strangers skipped."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import AnswerTooLong
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.layout import FolderKeys, node_key
from untrusted_s3.store.listing import (
    list_checkpoints,
    list_folders,
    list_losses,
    list_nodes,
    list_peers,
    list_segments,
    list_usage,
)
from untrusted_s3.store.positions import Positions

KEYS = FolderKeys.of("f")


def bucket_with(*keys: str) -> MemoryBucket:
    bucket = MemoryBucket()
    for key in keys:
        bucket.objects[key] = b"body"
    return bucket


async def test_what_keys_mean() -> None:
    strangers = [KEYS.segments + "notes.txt", KEYS.checkpoints + "7", KEYS.segment(3) + "/below"]
    others = [FolderKeys.of("g").segment(9), KEYS.record]
    bucket = bucket_with(KEYS.segment(1), KEYS.segment(12), KEYS.checkpoint(5), *strangers, *others)
    segments, checkpoints = await list_segments(bucket, KEYS), await list_checkpoints(bucket, KEYS)
    assert list(segments) == [1, 12]
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


class Lists(MemoryBucket):
    """A bucket that lists some keys, perhaps without end."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__()
        self.keys = keys

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        for key in self.keys:
            yield ObjectSummary(key, 1, 0.0)

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        for key in self.keys:
            yield key


async def gathered(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


ENDLESS: dict[str, tuple[Callable[[int], str], Callable[[Bucket], Awaitable[object]]]] = {
    "segments": (KEYS.segment, lambda bucket: list_segments(bucket, KEYS, most=10_000)),
    "segments with gaps": (
        lambda number: KEYS.segment(2 * number),
        lambda bucket: list_segments(bucket, KEYS, most=150_000),
    ),
    "checkpoints": (KEYS.checkpoint, lambda bucket: list_checkpoints(bucket, KEYS)),
    "strangers": (lambda number: f"{KEYS.segments}{number}", lambda bucket: list_segments(bucket, KEYS, most=10_000)),
    "losses": (lambda number: KEYS.loss(number, "a" * 32), lambda bucket: list_losses(bucket, KEYS)),
    "folders": (lambda number: f"folders/{number}/", lambda bucket: gathered(list_folders(bucket))),
    "devices": (lambda number: f"peers/{number}.json", lambda bucket: gathered(list_peers(bucket))),
    "gateways": (lambda number: f"nodes/{number}.json", lambda bucket: gathered(list_nodes(bucket))),
    "usage": (lambda number: f"usage/{number}.json", lambda bucket: gathered(list_usage(bucket))),
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_no_listing_is_kept_without_end(what: str) -> None:
    key, listing = ENDLESS[what]
    with pytest.raises(AnswerTooLong, match="more than"):
        await listing(Lists(map(key, itertools.count(1))))


@pytest.mark.parametrize("what", ENDLESS)
async def test_a_listing_that_repeats_itself(what: str) -> None:
    key, listing = ENDLESS[what]
    with pytest.raises(AnswerTooLong, match="more than"):
        await listing(Lists(itertools.cycle([key(1), key(2)])))


def test_every_kind_of_listing_is_here() -> None:
    prefixes = {
        getattr(layout, name) for name in vars(layout) if name.isupper() and str(getattr(layout, name))[-1:] == "/"
    }
    listed = {key(1).split("/")[0] + "/" for key, _ in ENDLESS.values()}
    assert prefixes - listed == {layout.IDENTITIES, layout.PROBES}, "identities are read by name, of probes a part"


async def test_a_log_without_gaps_takes_one_range() -> None:
    found = await list_segments(Lists(map(KEYS.segment, range(5, 50_005))), KEYS)
    assert found.ranges == [range(5, 50_005)]


@given(st.lists(st.integers(1, 40)), st.booleans(), st.integers(1, 40), st.integers(0, 40))
def test_positions(added: list[int], rising: bool, first: int, last: int) -> None:
    positions, some = Positions(), set(added)
    for position in sorted(added) if rising else added:
        positions.add(position)
    assert len(positions.ranges) == len([position for position in some if position - 1 not in some])
    assert list(positions) == sorted(some) and len(positions) == len(some) and bool(positions) == bool(some)
    assert positions.last == max(some, default=0)
    assert [position in positions for position in range(45)] == [position in some for position in range(45)]
    missing = [position for gap in positions.gaps(first, last) for position in gap]
    assert missing == sorted(set(range(first, last + 1)) - some)
