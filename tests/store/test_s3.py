"""The real store: against a real S3 server, and against one that fails as networks do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import pytest

from tests.peers.fault_proxy import Fault, FaultProxy, Moment, Reset
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import (
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    StoreBusy,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
)
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.bucket import Buffer, UploadedPart
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import MIB

CREDENTIALS = S3Credentials("access", "secret")
IMPATIENT = StoreSettings(retry_delay=0.0)


def credentials_of(server: S3Server) -> S3Credentials:
    return S3Credentials(server.access_key, server.secret_key)


# A real server


@pytest.mark.store
@on_each_s3_server
@pytest.mark.parametrize("body", [b"", b"x", os.urandom(3 * MIB)])
async def test_bytes_come_back(bucket: S3Bucket, body: bytes) -> None:
    cut = len(body) // 3
    await bucket.put("a/b", [body[:cut], memoryview(body)[cut:], bytearray()])
    assert await bucket.get("a/b") == body
    assert await bucket.size("a/b") == len(body)


@pytest.mark.store
@on_each_s3_server
async def test_ranges(bucket: S3Bucket) -> None:
    body = os.urandom(10_000)
    await bucket.put("key", [body])
    for start, size in ((0, 1), (1, 9_999), (9_999, 1), (5_000, 0), (0, 10_000), (7, None), (0, None)):
        expected = body[start : None if size is None else start + size]
        assert await bucket.get("key", start, size) == expected, (start, size)


@pytest.mark.store
@on_each_s3_server
async def test_a_range_beyond_the_end_is_an_error(bucket: S3Bucket) -> None:
    await bucket.put("key", [b"0123456789"])
    for start, size in ((5, 6), (10, 1)):
        with pytest.raises(StoreError):
            await bucket.get("key", start, size)


@pytest.mark.store
@on_each_s3_server
async def test_what_is_not_there(bucket: S3Bucket, tmp_path: Path) -> None:
    with pytest.raises(NoSuchKey):
        await bucket.get("missing")
    with pytest.raises(NoSuchKey):
        await bucket.download_file("missing", tmp_path / "file")
    assert await bucket.size("missing") is None
    await bucket.delete("missing")
    assert [item async for item in bucket.list("missing")] == []
    assert [name async for name in bucket.list_directories("missing/")] == []


@pytest.mark.store
@on_each_s3_server
async def test_of_concurrent_creators_one_wins(bucket: S3Bucket) -> None:
    async def create(number: int) -> bool:
        try:
            await bucket.put("key", [b"%d" % number], if_none_match=True)
        except PreconditionFailed:
            return False
        return True

    won = await asyncio.gather(*(create(number) for number in range(16)))
    assert sum(won) == 1
    assert await bucket.get("key") == b"%d" % won.index(True)
    await bucket.put("key", [b"replaced"])
    assert await bucket.get("key") == b"replaced"


@pytest.mark.store
@on_each_s3_server
async def test_long_listings_are_complete(bucket: S3Bucket) -> None:
    keys = {f"many/{number:04d}/object" for number in range(1_050)} | {"many/one", "manyfold"}
    limit = asyncio.Semaphore(32)

    async def put(key: str) -> None:
        async with limit:
            await bucket.put(key, [key.encode()])

    await asyncio.gather(*map(put, keys))
    found = [item async for item in bucket.list("many/")]
    assert {item.key for item in found} == keys - {"manyfold"}
    assert len(found) == len(keys) - 1
    assert all(item.size == len(item.key) for item in found)
    directories = [name async for name in bucket.list_directories("many/")]
    assert sorted(directories) == sorted(key.removesuffix("object") for key in keys if key.endswith("object"))
    assert sorted([name async for name in bucket.list_level("many/")]) == sorted([*directories, "many/one"])


@pytest.mark.store
@on_each_s3_server
async def test_a_multipart_upload(bucket: S3Bucket) -> None:
    source, sent, last = os.urandom(6 * MIB), os.urandom(5 * MIB), b"last"
    await bucket.put("source", [source])
    upload_id = await bucket.create_multipart_upload("large")
    etags = await asyncio.gather(
        bucket.upload_part("large", upload_id, 1, [sent[:7], sent[7:]]),
        bucket.upload_part_copy("large", upload_id, 2, "source", 10, 10 + 5 * MIB),
        bucket.upload_part("large", upload_id, 3, [last]),
    )
    assert await bucket.size("large") is None
    await bucket.complete_multipart_upload("large", upload_id, etags)
    assert await bucket.get("large") == sent + source[10 : 10 + 5 * MIB] + last


@pytest.mark.store
@on_each_s3_server
async def test_unfinished_uploads_and_their_parts_are_found(bucket: S3Bucket) -> None:
    begun = {await bucket.create_multipart_upload("below/large"), await bucket.create_multipart_upload("below/large")}
    other = await bucket.create_multipart_upload("below/large-too")
    upload_id = min(begun)
    etags = {
        number: await bucket.upload_part("below/large", upload_id, number, [bytes(5 * MIB + number)])
        for number in (3, 1, 12)
    }
    found = [upload async for upload in bucket.list_multipart_uploads("below/large")]
    assert {(upload.key, upload.upload_id) for upload in found} == {
        *(("below/large", one) for one in begun),
        ("below/large-too", other),
    }
    assert all(-5 <= upload.age < 60 for upload in found)
    parts = [part async for part in bucket.list_parts("below/large", upload_id)]
    assert parts == [UploadedPart(number, 5 * MIB + number, etags[number]) for number in (1, 3, 12)]
    assert [part async for part in bucket.list_parts("below/large", max(begun))] == []

    for upload in found:
        await bucket.abort_multipart_upload(upload.key, upload.upload_id)
    assert [upload async for upload in bucket.list_multipart_uploads("below/")] == []
    with pytest.raises(UploadLost):
        [part async for part in bucket.list_parts("below/large", upload_id)]


@pytest.mark.store
@on_each_s3_server
async def test_a_part_that_was_replaced_is_not_taken_for_the_one_before(bucket: S3Bucket) -> None:
    # If two gateways continue one upload, the object must consist of the parts that its ETags name.
    upload_id = await bucket.create_multipart_upload("large")
    before = await bucket.upload_part("large", upload_id, 1, [b"of the first"])
    after = await bucket.upload_part("large", upload_id, 1, [b"of the second"])
    assert before != after
    try:
        await bucket.complete_multipart_upload("large", upload_id, [before])
    except StoreError:
        assert await bucket.size("large") is None
    else:  # SeaweedFS keeps both
        assert await bucket.get("large") == b"of the first"


@pytest.mark.store
@on_each_s3_server
async def test_many_uploads_and_parts_are_listed_whole(bucket: S3Bucket) -> None:
    def small_pages(params: dict[str, Any], model: Any, **_: Any) -> None:
        params["MaxUploads" if model.name == "ListMultipartUploads" else "MaxParts"] = 2

    for operation in ("ListMultipartUploads", "ListParts"):
        bucket.client.meta.events.register(f"provide-client-params.s3.{operation}", small_pages)
    uploads = {await bucket.create_multipart_upload(f"large-{number // 2}") for number in range(5)}
    assert {upload.upload_id async for upload in bucket.list_multipart_uploads("")} == uploads
    upload_id = await bucket.create_multipart_upload("parts")
    for number in range(1, 6):
        await bucket.upload_part("parts", upload_id, number, [b"x" * number])
    assert [part.size async for part in bucket.list_parts("parts", upload_id)] == [1, 2, 3, 4, 5]
    async for upload in bucket.list_multipart_uploads(""):
        await bucket.abort_multipart_upload(upload.key, upload.upload_id)


@pytest.mark.store
@on_each_s3_server
async def test_an_aborted_multipart_upload_is_gone(bucket: S3Bucket) -> None:
    upload_id = await bucket.create_multipart_upload("large")
    await bucket.put("source", [bytes(100)])
    with pytest.raises(NoSuchKey):
        await bucket.upload_part_copy("large", upload_id, 1, "missing", 0, 10)
    etag = await bucket.upload_part("large", upload_id, 1, [b"part"])
    with pytest.raises(UploadLost):
        await bucket.complete_multipart_upload("large", upload_id, ['"' + 32 * "0" + '"'])
    await bucket.abort_multipart_upload("large", upload_id)
    await bucket.abort_multipart_upload("large", upload_id)
    with pytest.raises(UploadLost):
        await bucket.upload_part("large", upload_id, 1, [b"late"])
    with pytest.raises(UploadLost):
        await bucket.upload_part_copy("large", upload_id, 1, "source", 0, 10)
    with pytest.raises(StoreError):  # Ceph says 500
        await bucket.complete_multipart_upload("large", upload_id, [etag])
    assert await bucket.size("large") is None


@pytest.mark.store
@on_each_s3_server
async def test_files(bucket: S3Bucket, tmp_path: Path) -> None:
    for body in (b"", os.urandom(1000), os.urandom(17 * MIB)):  # the last one in parts
        (tmp_path / "up").write_bytes(body)
        await bucket.upload_file("file", tmp_path / "up")
        await bucket.download_file("file", tmp_path / "down")
        assert (tmp_path / "down").read_bytes() == body
    (listed,) = [item async for item in bucket.list("")]
    assert (listed.key, listed.size) == ("file", 17 * MIB)
    assert 0 <= listed.age < 60


@pytest.mark.store
@on_each_s3_server
async def test_a_file_whose_upload_takes_too_long_is_refused_by_the_store(
    bucket: S3Bucket, s3_server: S3Server, tmp_path: Path
) -> None:
    """A checkpoint must not appear long after it was begun."""

    class Slow(S3Bucket):
        async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
            await asyncio.sleep(2.2)
            return await super().upload_part(key, upload_id, number, body)

    slow = Slow(bucket.location, connect(s3_server.endpoint_url, credentials_of(s3_server)))
    (tmp_path / "up").write_bytes(bytes(9 * MIB))
    try:
        with pytest.raises(StoreRefused):
            await slow.upload_file("file", tmp_path / "up", lifetime=1)
    finally:
        await slow.close()
    assert await bucket.size("file") is None
    answer = bucket.client.list_multipart_uploads(Bucket=bucket.location.bucket)
    assert [item for item in answer.get("Uploads", []) if item["Key"].startswith(bucket.location.prefix)] == []


@pytest.mark.store
@on_each_s3_server
async def test_a_completion_whose_answer_was_lost(bucket: S3Bucket, s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(9 * MIB))
    with FaultProxy(s3_server.endpoint_url) as proxy:
        faults: list[Fault] = [Reset(Moment.AFTER)]
        proxy.script = lambda request: (
            faults.pop() if faults and request.operation == "CompleteMultipartUpload" else None
        )
        faulty = S3Bucket(bucket.location, connect(proxy.url, credentials_of(s3_server)))
        try:
            await faulty.upload_file("file", tmp_path / "up")
        finally:
            await faulty.close()
        assert proxy.faults.total() == 1
    assert await bucket.size("file") == 9 * MIB


@pytest.mark.store
@on_each_s3_server
async def test_requests_are_counted(bucket: S3Bucket) -> None:
    before = dict(bucket.requests)
    await bucket.put("key", [b"x"])
    await bucket.get("key")
    await bucket.get("key")
    await bucket.delete("key")
    grown = {name: count - before.get(name, 0) for name, count in bucket.requests.items() if count != before.get(name)}
    assert grown == {"PUT": 1, "GET": 2, "delete_object": 1}


@pytest.mark.store
@on_each_s3_server
async def test_a_missing_bucket_can_be_created(s3_server: S3Server, bucket_prefix: str) -> None:
    location = StoreLocation(bucket_prefix, "")
    arguments = (location, s3_server.endpoint_url, S3Credentials(s3_server.access_key, s3_server.secret_key))
    with pytest.raises(NoSuchBucket):
        await S3Bucket.open(*arguments)
    created = await S3Bucket.open(*arguments, create_bucket=True)
    try:
        await created.put("key", [b"x"])
        again = await S3Bucket.open(*arguments, create_bucket=True)
        await again.close()
        await created.delete("key")
        created.client.delete_bucket(Bucket=bucket_prefix)
    finally:
        await created.close()


@pytest.mark.store
@on_each_s3_server
@pytest.mark.parametrize("wrong", ["access key", "secret key"])
async def test_wrong_credentials(s3_server: S3Server, wrong: str) -> None:
    credentials = S3Credentials(
        "WRONG" if wrong == "access key" else s3_server.access_key,
        "wrong" if wrong == "secret key" else s3_server.secret_key,
    )
    with pytest.raises(StoreRefused, match="credentials"):
        await S3Bucket.open(StoreLocation(s3_server.bucket, ""), s3_server.endpoint_url, credentials)


@pytest.mark.store
@on_each_s3_server
async def test_a_refused_upload_of_a_file_is_our_error(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = S3Bucket(
        StoreLocation(s3_server.bucket, ""),
        connect(s3_server.endpoint_url, S3Credentials(s3_server.access_key, "wrong")),
    )
    (tmp_path / "file").write_bytes(b"x")
    try:
        with pytest.raises(StoreRefused):
            await bucket.upload_file("file", tmp_path / "file")
    finally:
        await bucket.close()


# A server with faults


class Flaky:
    """Fails as told, as often as told, then answers."""

    def __init__(self, fault: Answer | None, times: int, then: Answer) -> None:
        self.requests: list[Request] = []
        self._fault, self._times, self._then = fault, times, then

    def __call__(self, request: Request) -> Answer | None:
        self.requests.append(request)
        return self._fault if len(self.requests) <= self._times else self._then


def bucket_at(url: str, prefix: str = "", settings: StoreSettings = IMPATIENT) -> S3Bucket:
    return S3Bucket(StoreLocation("bucket", prefix), connect(url, CREDENTIALS, settings), settings)


FAULTS = {
    "connection closed": None,
    "500": Answer(500),
    "503 SlowDown": Answer(503, b"<Error><Code>SlowDown</Code></Error>"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("operation", ["get", "put", "upload_part"])
async def test_faults_that_pass_are_not_noticed(operation: str, fault: Answer | None) -> None:
    flaky = Flaky(fault, IMPATIENT.tries - 1, Answer(200, b"body" if operation == "get" else b"", {"ETag": '"tag"'}))
    with http_server(flaky) as url:
        bucket = bucket_at(url, "prefix/")
        try:
            if operation == "get":
                assert await bucket.get("key") == b"body"
            elif operation == "put":
                await bucket.put("key", [b"bo", b"dy"], if_none_match=True)
            else:
                assert await bucket.upload_part("key", "upload", 1, [b"bo", b"dy"]) == '"tag"'
        finally:
            await bucket.close()
    if operation != "get":
        assert flaky.requests[-1].body == b"body"
    if operation == "put":
        assert flaky.requests[-1].headers["If-None-Match"] == "*"
        # One signature for all tries: it ends in time.
        assert len({request.path for request in flaky.requests}) == 1
    # Ceph refuses presigned requests with headers that are not signed.
    sent = {name.lower() for request in flaky.requests for name in request.headers}
    assert "content-type" not in sent and not any(name.startswith("x-amz-") for name in sent)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_faults_that_stay_are_an_error_in_the_end(fault: Answer | None) -> None:
    flaky = Flaky(fault, 1000, Answer())
    with http_server(flaky) as url:
        bucket = bucket_at(url)
        try:
            with pytest.raises(StoreUnreachable):
                await bucket.get("key")
        finally:
            await bucket.close()
    assert len(flaky.requests) >= IMPATIENT.tries


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("operation", ["get", "put", "upload_part"])
async def test_the_limit_of_a_request_hears_of_answers_and_of_what_the_store_asks_for(
    operation: str, status: int
) -> None:
    busy = Answer(status, b"<Error><Code>SlowDown</Code></Error>", {"Retry-After": "0"})
    flaky = Flaky(busy, 1, Answer(200, b"body" if operation == "get" else b"", {"ETag": '"tag"'}))
    limit = AdaptiveLimit(16, 32)
    with http_server(flaky) as url:
        bucket = bucket_at(url)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: bucket.get("key"),
            "put": lambda: bucket.put("key", [b"body"]),
            "upload_part": lambda: bucket.upload_part("key", "upload", 1, [b"body"]),
        }
        try:
            async with limit.of("folder"):
                await calls[operation]()
            assert (limit.limit, limit.backed_off, limit.in_flight) == (8, 1, 0)
            for _ in range(3 * 8):
                async with limit.of("folder"):
                    await calls[operation]()
            assert limit.limit > 8 and limit.backed_off == 1
            await calls[operation]()  # without a place
        finally:
            await bucket.close()


async def test_a_pause_longer_than_anybody_waits_is_an_error_at_once() -> None:
    busy = Flaky(Answer(503, headers={"Retry-After": "3600"}), 1000, Answer())
    limit = AdaptiveLimit(16, 32)
    with http_server(busy) as url:
        bucket = bucket_at(url)
        try:
            async with limit.of("folder"):
                with pytest.raises(StoreBusy) as refused:
                    await bucket.get("key")
            assert refused.value.pause == 3600
            with pytest.raises(StoreBusy) as refused:
                await bucket.size("key")
            assert refused.value.pause == 3600
        finally:
            await bucket.close()
    assert [request.method for request in busy.requests] == ["GET", "HEAD"]


async def test_a_refusal_is_tried_once_more_with_a_new_signature_and_no_oftener() -> None:
    denied = Answer(403, b"<Error><Code>ExpiredToken</Code></Error>")
    for times, well in ((1, True), (1000, False)):
        flaky = Flaky(denied, times, Answer(200, b"body"))
        with http_server(flaky) as url:
            bucket = bucket_at(url)
            try:
                if well:
                    assert await bucket.get("key") == b"body"
                else:
                    with pytest.raises(StoreRefused, match="credentials"):
                        await bucket.get("key")
            finally:
                await bucket.close()
        assert len(flaky.requests) == 2


async def test_a_truncated_or_overlong_range_is_no_success() -> None:
    flaky = Flaky(Answer(200, b"the whole object"), 2, Answer(206, b"part"))
    with http_server(flaky) as url:
        bucket = bucket_at(url)
        try:
            assert await bucket.get("key", 3, 4) == b"part"
        finally:
            await bucket.close()
    assert flaky.requests[0].headers["Range"] == "bytes=3-6"


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_is_off_by_an_hour_is_refused(hours: int) -> None:
    def answer(request: Request) -> Answer:
        return Answer(date=format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True))

    with http_server(answer) as url, pytest.raises(StoreRefused, match=r"clock is (59|60) minutes"):
        await S3Bucket.open(StoreLocation("bucket", ""), url, CREDENTIALS)


async def test_the_region_is_told_where_amazon_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for region, told in (("us-east-1", False), ("eu-central-1", True)):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        requests: list[Request] = []

        def answer(request: Request, requests: list[Request] = requests) -> Answer:
            requests.append(request)
            return Answer(404 if request.method == "HEAD" else 200)

        with http_server(answer) as url:
            bucket = await S3Bucket.open(StoreLocation("bucket", ""), url, CREDENTIALS, create_bucket=True)
            await bucket.close()
        assert (region.encode() in requests[-1].body) == told


async def test_the_bucket_goes_on_after_a_cancelled_get() -> None:
    with http_server(lambda request: Answer(200, b"x" * 1000)) as url:
        bucket = bucket_at(url)
        task = asyncio.create_task(bucket.get("key"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await bucket.get("key") == b"x" * 1000
        await bucket.close()


async def test_a_store_that_stops_to_read_is_given_up() -> None:
    taken: list[asyncio.StreamWriter] = []

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cast(asyncio.ReadTransport, writer.transport).pause_reading()
        taken.append(writer)

    server = await asyncio.start_server(never_read, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bucket = bucket_at(f"http://127.0.0.1:{port}", settings=StoreSettings(tries=1, timeout=0.1, slowest_upload=1e9))
    try:
        with pytest.raises(StoreUnreachable):
            await bucket.put("key", [bytes(64 * MIB)])
    finally:
        await bucket.close()
        for writer in taken:
            writer.close()
        server.close()


async def test_a_proxy_is_not_asked_for_a_store_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with http_server(lambda request: Answer(200, headers={"Content-Length": "7"})) as url:
        bucket = bucket_at(url)
        assert await bucket.size("key") == 7
        await bucket.close()
