"""A gateway writes down what it asks of the store: nothing twice, nothing lost but after a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from tests.file_infos import device
from tests.simulated import Fault, SimulatedBucket, SimulatedStore, fail_once
from untrusted_s3.gateway.usage import Usage
from untrusted_s3.store.layout import usage_key
from untrusted_s3.store.usage import KINDS, RECEIVED, UsageRecord, by_kind

KEY = usage_key(device(1))
HOUR, DAY = 3600.0, 86_400.0


class CountingBucket(SimulatedBucket):
    """A simulated bucket with numbers of requests that a test chooses."""

    def __init__(self, store: SimulatedStore | None = None) -> None:
        super().__init__(store)
        self.requests: dict[str, int] = {}
        self.received = 0


@pytest.fixture
def bucket() -> CountingBucket:
    return CountingBucket()


def stored(bucket: SimulatedBucket) -> UsageRecord:
    return UsageRecord.from_json(json.loads(bucket.store.body(KEY)))


def month(bucket: SimulatedBucket) -> Mapping[str, int]:
    return {kind: count for kind, count in stored(bucket).last_month(bucket.now()).items() if count}


async def test_requests_are_added_to_what_is_written(bucket: CountingBucket) -> None:
    usage = Usage(bucket, device(1))
    for sent in (5, 7, 7):
        bucket.requests = {"GET": sent, "list_objects_v2": 2}
        bucket.received = 100 * sent
        await usage.save()
    assert month(bucket) == {"get": 7, "list": 2, RECEIVED: 700}
    assert stored(bucket).last_day(bucket.now())["get"] == 7


async def test_after_a_restart_it_goes_on(bucket: CountingBucket) -> None:
    for sent in (5, 3):
        bucket.requests = {"PUT": sent}
        await Usage(bucket, device(1)).save()
    assert month(bucket) == {"put": 8}


async def test_two_processes_one_after_the_other_lose_nothing(bucket: CountingBucket) -> None:
    """The old process writes once more when the new one has written already."""
    old, new = Usage(bucket, device(1)), Usage(later := CountingBucket(bucket.store), device(1))
    for usage, counting, sent in ((old, bucket, 5), (new, later, 3), (old, bucket, 9), (new, later, 4)):
        counting.requests = {"PUT": sent}
        await usage.save()
    assert month(bucket) == {"put": 9 + 4}


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.UNREACHABLE, Fault.EMPTIED])
async def test_a_failed_write_counts_nothing_twice(bucket: CountingBucket, fault: Fault) -> None:
    usage = Usage(bucket, device(1))
    bucket.fault = fail_once("put", fault)
    with capture_logs() as log:
        for sent in (5, 7):
            bucket.requests = {"GET": sent}
            await usage.save()
    assert [line["event"] for line in log] == ["requests not written down"]
    assert month(bucket) == {"get": 7}


async def test_a_damaged_record_is_replaced(bucket: CountingBucket) -> None:
    bucket.store.put(KEY, b"[]")
    bucket.requests = {"GET": 5}
    with capture_logs() as log:
        await Usage(bucket, device(1)).save()
    assert [line["event"] for line in log] == ["record of requests not readable"]
    assert month(bucket) == {"get": 5}


def test_what_is_long_past_is_left_out() -> None:
    record = UsageRecord(device(1), 1_700_000_000)
    begin = 1_700_000_000.0
    for hour in range(24 * 100):
        record = record.plus({"get": 1}, begin + hour * HOUR, "0" * 32)
    now = begin + 100 * DAY
    assert (len(record.hours), len(record.days)) == (25, 31)
    assert 23 <= record.last_day(now)["get"] <= 24
    assert 29 * 24 <= record.last_month(now)["get"] <= 30 * 24
    assert UsageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_kinds() -> None:
    names = ("PUT", "POST", "GET", "head_object", "list_parts", "upload_part_copy", "delete_object", "create_bucket")
    assert by_kind(dict.fromkeys(names, 1)) == {kind: 2 if kind == "put" else 1 for kind in KINDS}
