"""Reading the records of accepted devices again, each only where it may have changed."""

from __future__ import annotations

import asyncio

import pytest

from tests.file_infos import device
from tests.simulated import SimulatedBucket
from tests.sync.judging_device import virtual_store
from tests.virtual_time import virtual_time
from untrusted_s3.store import layout
from untrusted_s3.store.peer_records import PeerReader
from untrusted_s3.store.records import PeerRecord, write_record

pytestmark = virtual_time
LIFETIME = 3600.0


async def write(bucket: SimulatedBucket, number: int, name: str) -> None:
    record = PeerRecord(device(number), name)
    await write_record(bucket, layout.peer_key(record.device_id), record.to_json())


async def names(reader: PeerReader) -> list[str]:
    return sorted(record.name for record in await reader.read())


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket(virtual_store())


async def test_what_has_not_changed_is_read_once_in_a_while(bucket: SimulatedBucket) -> None:
    reader = PeerReader(bucket, LIFETIME)
    await write(bucket, 1, "one")
    await write(bucket, 2, "two")
    await asyncio.sleep(100)
    for _ in range(100):
        assert await names(reader) == ["one", "two"]
        await asyncio.sleep(30)
    assert bucket.count("get") == 2
    await asyncio.sleep(LIFETIME)
    assert await names(reader) == ["one", "two"]
    assert bucket.count("get") == 4


@pytest.mark.parametrize("pause", [0.0, 0.5, 5.0, 15.0, 30.0, 1000.0])
@pytest.mark.parametrize("before", [0.0, 3.0, 100.0])
async def test_every_change_is_seen_at_once(bucket: SimulatedBucket, pause: float, before: float) -> None:
    reader = PeerReader(bucket, LIFETIME)
    await write(bucket, 1, "0")
    for number in range(1, 6):
        await asyncio.sleep(before)
        assert await names(reader) == [str(number - 1)]
        await asyncio.sleep(pause)
        await write(bucket, 1, str(number))
        assert await names(reader) == [str(number)]
    await bucket.delete(layout.peer_key(device(1)))
    assert await names(reader) == []


async def test_a_record_that_could_not_be_read_is_read_again(bucket: SimulatedBucket) -> None:
    reader = PeerReader(bucket, LIFETIME)
    await write(bucket, 1, "one")
    await asyncio.sleep(100)
    assert await names(reader) == ["one"]
    await asyncio.sleep(100)
    key = layout.peer_key(device(1))
    body = bucket.store.body(key)
    bucket.store.put(key, b"no JSON")
    assert len((await reader.read()).unreadable) == 1
    await asyncio.sleep(100)
    assert len((await reader.read()).unreadable) == 1
    bucket.store.put(key, body)
    assert await names(reader) == ["one"]
