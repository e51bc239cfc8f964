"""The whole life of garbage on a real store: files are rewritten, and in the end only what is live is left."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import device, file
from tests.loops import one_loop
from tests.peers.gateway_from_parts import AgedBucket
from tests.peers.s3_server import S3Server, on_each_s3_server
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.counters import Counters
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import TrimPlan, plan_trim, trim
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import Collected, GarbageCollector, GarbageSettings

KEYS = FolderKeys.of("photos")
HISTORY = 30 * DAY
FILES, VERSIONS = 20, 6
SETTINGS = GarbageSettings(deletions_per_second=0.0)


@pytest.fixture
async def gateways(s3_server: S3Server, bucket_prefix: str) -> AsyncIterator[list[AgedBucket]]:
    """The connections of two gateways."""
    location = StoreLocation(s3_server.bucket, f"{bucket_prefix}/")
    credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
    opened = [await AgedBucket.open(location, s3_server.endpoint_url, credentials) for _ in range(2)]
    yield opened
    for bucket in opened:
        await bucket.close()


async def fetch(number: int, block: pb.BlockInfo) -> memoryview:
    return memoryview(hashlib.shake_128(block.hash).digest(block.size))


async def rewrite(bucket: AgedBucket, state: FolderState) -> int:
    """Write all versions of all files, and return the bytes of the last ones."""
    log = FolderLog(bucket, KEYS, state, device(1))
    candidates = log.garbage.candidates
    writer = ObjectWriter(
        bucket, KEYS, Account(1 << 20), UploadLimits.of(ObjectSettings()), Counters(), ObjectSettings(), PartGrid(),
        is_candidate=candidates.has,
    )  # fmt: skip
    entries: list[Entry] = []
    for version in range(1, VERSIONS + 1):
        infos = [file(number, version, sizes=(2000 + 100 * version,), content=version) for number in range(FILES)]
        stored = await asyncio.gather(*(writer.write(info, fetch, owner=1) for info in infos))
        entries = [Entry(info, one) for info, one in zip(infos, stored, strict=True)]
        await log.append(entries)
    await log.checkpoint()
    return sum(entry.stored.size for entry in entries if entry.stored is not None)


async def turn(bucket: AgedBucket, directory: Path) -> Collected:
    """Do what a gateway's upkeep does."""
    await trim(bucket, KEYS, HISTORY, known=VERSIONS, directory=directory)
    collector = GarbageCollector(bucket, KEYS, clock=time.time, settings=SETTINGS, directory=directory)
    return await collector.collect()


async def sizes(bucket: AgedBucket) -> dict[str, int]:
    return {item.key: item.size async for item in bucket.list(KEYS.objects)}


@on_each_s3_server
@pytest.mark.store
@one_loop
async def test_what_is_rewritten_takes_the_space_of_what_is_live(gateways: list[AgedBucket], tmp_path: Path) -> None:
    first = gateways[0]
    state = FolderState(tmp_path / "state.sqlite")
    try:
        live = await rewrite(first, state)
        named = {KEYS.object_of(one.name_hash, one.object_name) for one in state.objects()}
    finally:
        state.close()
    assert len(await sizes(first)) == FILES * VERSIONS
    for bucket in gateways:
        await bucket.make_older(31 * DAY)

    async def leaving(ages: dict[int, float]) -> TrimPlan:
        return await plan_trim(first, KEYS, ages, HISTORY)

    look = await GarbageCollector(first, KEYS, settings=SETTINGS, directory=tmp_path).look(leaving)
    assert look.found.objects == FILES * (VERSIONS - 1)
    assert len(await sizes(first)) == FILES * VERSIONS, "it only looks"

    found = await asyncio.gather(*(turn(bucket, tmp_path) for bucket in gateways))
    assert {one.found.objects for one in found} <= {0, FILES * (VERSIONS - 1)}
    assert len(await sizes(first)) == FILES * VERSIONS, "nothing is deleted on the day on which it was found"

    for bucket in gateways:
        await bucket.make_older(1.05 * DAY)
    done = await asyncio.gather(*(turn(bucket, tmp_path) for bucket in gateways))
    assert max(one.deleted.objects for one in done) == FILES * (VERSIONS - 1)
    left = await sizes(first)
    assert (set(left), sum(left.values())) == (named, live)
    assert not any(one.deleted.objects for one in await asyncio.gather(*(turn(one, tmp_path) for one in gateways)))
