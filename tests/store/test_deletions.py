"""Credentials that may not delete: the first denial is asked for, and the others are known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.simulated import SimulatedBucket, SimulatedClock, deny_deletions
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import DeletionDenied, RequestRefused
from untrusted_s3.store import layout, probe
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

DENIED = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")


def opened(url: str) -> S3Bucket:
    return S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("access", "secret")))


@pytest.mark.parametrize("lifetime", [None, 900])
async def test_a_denial_is_heard_once(lifetime: int | None) -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return DENIED

    with http_server(answer) as url:
        bucket = opened(url)
        assert bucket.deletions.denied == []
        for _ in range(3):
            with pytest.raises(DeletionDenied, match="delete key"):
                await bucket.delete("key", lifetime=lifetime)
        assert len(requests) == 1
        assert bucket.deletions.denied == ["DeleteObject"]
        for _ in range(3):
            with pytest.raises(DeletionDenied, match="abort an upload to key"):
                await bucket.abort_multipart_upload("key", "id")
        assert len(requests) == 2, "the right to abort uploads is another one"
        assert bucket.deletions.denied == ["DeleteObject", "AbortMultipartUpload"]
        await bucket.close()


async def test_a_late_request_is_no_denial() -> None:
    """Stores answer 403 AccessDenied as well when the time of a presigned URL is over."""
    late = format_datetime(datetime.now(UTC) + timedelta(seconds=1000), usegmt=True)
    answer = Answer(403, b"<Error><Code>AccessDenied</Code></Error>", date=late)
    with http_server(lambda request: answer) as url:
        bucket = opened(url)
        with pytest.raises(RequestRefused, match="too late") as refusal:
            await bucket.delete("key", lifetime=900)
        assert not isinstance(refusal.value, DeletionDenied)
        assert bucket.deletions.denied == []
        await bucket.close()


async def test_other_refusals_are_no_denials() -> None:
    with http_server(lambda request: Answer(400, b"<Error><Code>InvalidRequest</Code></Error>")) as url:
        bucket = opened(url)
        with pytest.raises(Exception, match="400"):
            await bucket.delete("key")
        assert bucket.deletions.denied == []
        await bucket.close()


async def test_probes_pass_and_what_they_leave_is_deleted_by_others() -> None:
    bucket = SimulatedBucket(fault=deny_deletions)
    assert "but not delete" in await probe.probe_rights(bucket)
    for _ in range(3):
        assert await probe.probe_conditional_writes(bucket)
    assert await probe.probe_presigned_ranges(bucket)
    assert await probe.probe_conditional_completion(bucket)
    left = bucket.store.keys()
    assert len(left) == 7 and all(key.startswith(layout.PROBES) for key in left)
    assert bucket.count("delete") == bucket.count("abort_multipart_upload") == 1
    other = SimulatedBucket(bucket.store)
    await probe.remove_old_probes(other)
    assert bucket.store.keys() == left, "a probe may be under way"
    clock = bucket.store.clock
    assert isinstance(clock, SimulatedClock)
    clock.now += 100_000
    await probe.remove_old_probes(other)
    assert bucket.store.keys() == []


async def test_whether_one_may_delete_is_found_out_without_a_write() -> None:
    bucket = SimulatedBucket()
    await probe.check_deletion(bucket)
    bucket.fault = deny_deletions
    with pytest.raises(DeletionDenied):
        await probe.check_deletion(bucket)
    assert {call.operation for call in bucket.calls} == {"delete"}
