"""The probes: a real store passes, one that breaks its word does not, and nothing is left behind."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tests.peers.s3_server import on_each_s3_server
from tests.store.http_server import Answer, Request, http_server
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.errors import ConditionalWritesUnsupported, StoreRefused, StoreUnreachable
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store import probe
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
PROBES = [
    probe.probe_rights,
    probe.probe_clock,
    probe.probe_conditional_writes,
    probe.probe_presigned_ranges,
    probe.probe_presigned_expiry,
    probe.probe_multipart,
    probe.probe_conditional_completion,
]


@pytest.mark.store
@on_each_s3_server
@pytest.mark.parametrize("run", PROBES)
async def test_a_real_store_passes_and_nothing_stays(run: Any, bucket: S3Bucket) -> None:
    assert await run(bucket)
    assert [item.key async for item in bucket.list("")] == []
    answer = bucket.client.list_multipart_uploads(Bucket=bucket.location.bucket)
    assert [item for item in answer.get("Uploads", []) if item["Key"].startswith(bucket.location.prefix)] == []


@pytest.mark.parametrize("conditional", ["ignored", "racing", "refused"])
async def test_a_store_without_conditional_writes_fails(conditional: str) -> None:
    bucket = MemoryBucket(conditional)
    with pytest.raises(ConditionalWritesUnsupported, match="overwrite each other's log"):
        await probe.probe_conditional_writes(bucket)
    assert bucket.objects == {}


async def test_a_store_that_keeps_them_passes() -> None:
    bucket = MemoryBucket("kept")
    await probe.probe_conditional_writes(bucket)
    await probe.probe_rights(bucket)
    await probe.probe_presigned_ranges(bucket)
    assert bucket.objects == {}


async def test_lost_answers_are_not_taken_for_a_refusal() -> None:
    bucket = MemoryBucket("answers lost")
    with pytest.raises(StoreUnreachable, match="answers"):
        await probe.probe_conditional_writes(bucket)
    assert bucket.objects == {}


async def test_a_lack_of_rights_is_not_taken_for_a_lack_of_conditional_writes() -> None:
    class ReadOnly(MemoryBucket):
        async def put(self, *args: Any, **parameters: Any) -> None:
            raise StoreRefused("denied")

    with pytest.raises(StoreRefused, match="denied") as refusal:
        await probe.probe_conditional_writes(ReadOnly())
    assert not isinstance(refusal.value, ConditionalWritesUnsupported)


@pytest.mark.parametrize("fault", ["reads other bytes", "lists late", "keeps what was deleted"])
async def test_a_store_that_cannot_be_relied_on_fails(fault: str) -> None:
    class Faulty(MemoryBucket):
        async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
            body = await super().get(key, start, size)
            return body[::-1] if fault == "reads other bytes" else body

        def list(self, prefix: str, start_after: str = "") -> Any:
            return super().list("nothing" if fault == "lists late" else prefix, start_after)

        async def delete(self, key: str, *, lifetime: int | None = None) -> None:
            if fault != "keeps what was deleted":
                await super().delete(key)

    with pytest.raises(StoreRefused):
        await probe.probe_rights(Faulty())


async def test_ranges_that_are_off_by_one_fail() -> None:
    class OffByOne(MemoryBucket):
        async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
            return await super().get(key, max(start - 1, 0), size)

    with pytest.raises(StoreRefused, match="other bytes"):
        await probe.probe_presigned_ranges(OffByOne())


async def test_a_store_that_ignores_the_end_of_a_presigned_put_fails() -> None:
    def accept_everything(request: Request) -> Answer:
        return Answer(204) if request.method == "DELETE" else Answer(200, LISTING if request.method == "GET" else b"")

    with http_server(accept_everything) as url:
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("a", "s")))
        try:
            with pytest.raises(StoreRefused, match="after its end"):
                await probe.probe_presigned_expiry(bucket)
        finally:
            await bucket.close()


@pytest.mark.parametrize(("hours", "direction"), [(-1, "ahead of"), (1, "behind")])
async def test_the_clock_is_compared(hours: int, direction: str) -> None:
    def answer(request: Request) -> Answer:
        return Answer(200, LISTING, date=format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True))

    with http_server(answer) as url:
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("a", "s")))
        try:
            seconds, unit, *rest = (await probe.probe_clock(bucket)).split()
        finally:
            await bucket.close()
    assert (unit, " ".join(rest)) == ("s", f"{direction} the store's")
    assert 3540 < int(seconds) < 3660


async def test_a_completion_refused_for_its_condition_is_named_so() -> None:
    """Backblaze B2 answers 501 to conditions. A completion without one works."""

    def answer(request: Request) -> Answer:
        if "If-None-Match" in request.headers:
            return Answer(501, b"<Error><Code>NotImplemented</Code></Error>")
        return Answer(body=b"<CompleteMultipartUploadResult><ETag>tag</ETag></CompleteMultipartUploadResult>")

    with http_server(answer) as url:
        for conditional in (True, False):
            settings = StoreSettings(tries=1, conditional_writes=conditional)
            connection = connect(url, S3Credentials("a", "s"), settings)
            bucket = S3Bucket(StoreLocation("bucket", ""), connection, settings)
            try:
                with pytest.raises(ConditionalWritesUnsupported) if conditional else contextlib.nullcontext():
                    await bucket.complete_multipart_upload("key", "upload", ["tag"])
            finally:
                await bucket.close()
