"""A store that misbehaves, at every operation of the seam: nothing is followed, decoded, read without end or told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import itertools
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.store.http_server import Answer, Request, http_server
from tests.waiting import PATIENCE
from untrusted_s3.errors import (
    AnswerTooLong,
    DataError,
    PreconditionFailed,
    StoreError,
    StoreRedirects,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.records import StoreRecord, read_record
from untrusted_s3.store.s3 import S3Bucket

SETTINGS = StoreSettings(tries=1)
MIB = 1 << 20
ENDLESS = 1 << 20  # times 1 MiB: nobody reads that in the time of a test
SECRETS = ("X-Amz-", "Signature=", "Credential=")

Operation = Callable[[Bucket, Path], Awaitable[Any]]


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def _upload_large(bucket: Bucket, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(9 * MIB)
    await bucket.upload_file("key", path)


async def _upload_small(bucket: Bucket, path: Path) -> None:
    path.write_bytes(b"body")
    await bucket.upload_file("key", path)


OPERATIONS: dict[str, Operation] = {
    "get": lambda bucket, path: bucket.get("key", max_size=MIB),
    "get range": lambda bucket, path: bucket.get("key", 5, 2000),
    "put": lambda bucket, path: bucket.put("key", [b"body"]),
    "put if none match": lambda bucket, path: bucket.put("key", [b"body"], if_none_match=True),
    "delete": lambda bucket, path: bucket.delete("key"),
    "size": lambda bucket, path: bucket.size("key"),
    "list": lambda bucket, path: _all(bucket.list("prefix")),
    "list_directories": lambda bucket, path: _all(bucket.list_directories("prefix/")),
    "list_level": lambda bucket, path: _all(bucket.list_level("prefix/")),
    "upload_file": _upload_small,
    "upload_file in parts": _upload_large,
    "download_file": lambda bucket, path: bucket.download_file("key", path),
    "create_multipart_upload": lambda bucket, path: bucket.create_multipart_upload("key"),
    "upload_part": lambda bucket, path: bucket.upload_part("key", "upload", 1, [b"body"]),
    "upload_part_copy": lambda bucket, path: bucket.upload_part_copy("key", "upload", 1, "other", 0, 5),
    "list_multipart_uploads": lambda bucket, path: _all(bucket.list_multipart_uploads("prefix")),
    "list_parts": lambda bucket, path: _all(bucket.list_parts("key", "upload")),
    "complete_multipart_upload": lambda bucket, path: bucket.complete_multipart_upload("key", "upload", ["etag"]),
    "abort_multipart_upload": lambda bucket, path: bucket.abort_multipart_upload("key", "upload"),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))


def test_every_operation_of_the_seam_is_here() -> None:
    methods = {name for name in vars(Bucket) if not name.startswith("_")}
    assert {name.split()[0] for name in OPERATIONS} == methods - {"now", "deletions"}  # they send no request


@contextlib.asynccontextmanager
async def bucket_at(url: str, settings: StoreSettings = SETTINGS) -> AsyncIterator[S3Bucket]:
    bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("access", "secret"), settings), settings)
    try:
        yield bucket
    finally:
        await bucket.close()


def told(error: BaseException) -> str:
    """All that a log, a status or a traceback can show of an error."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


def has_no_secret(error: BaseException) -> bool:
    text = told(error)
    return not any(secret in text for secret in SECRETS)


@every_operation
async def test_no_redirect_is_followed(operation: Operation, tmp_path: Path) -> None:
    elsewhere: list[Request] = []
    status = 301

    def other_host(request: Request) -> Answer:
        elsewhere.append(request)
        return Answer(200, b"stolen")

    def redirect(request: Request) -> Answer:
        return Answer(status, headers={"Location": other + request.path, "x-amz-bucket-region": "eu-west-9"})

    with http_server(other_host) as other, http_server(redirect) as url:
        async with bucket_at(url) as bucket:
            for status in (301, 302, 303, 307, 308):
                # urllib3 fails by itself at 303.
                kinds = (StoreRedirects, StoreUnreachable) if status == 303 else StoreRedirects
                with pytest.raises(kinds) as caught:
                    await operation(bucket, tmp_path / "file")
                assert elsewhere == [] and has_no_secret(caught.value)
                assert status == 303 or f"to {other}" in str(caught.value)


@every_operation
async def test_a_wrong_region_is_not_mended_behind_our_back(operation: Operation, tmp_path: Path) -> None:
    requests: list[Request] = []
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-9</Region></Error>"

    def reply(request: Request) -> Answer:
        requests.append(request)
        return Answer(400, body, {"x-amz-bucket-region": "eu-west-9"})

    with http_server(reply) as url:
        async with bucket_at(url) as bucket:
            with pytest.raises(StoreRefused):
                await operation(bucket, tmp_path / "file")
    assert all(request.headers["Host"] == url.removeprefix("http://") for request in requests)
    assert not any("eu-west-9" in str(request.headers) + request.path for request in requests)


@every_operation
async def test_no_content_encoding_is_decoded(operation: Operation, tmp_path: Path) -> None:
    asked: list[str] = []

    def reply(request: Request) -> Answer:
        asked.append(request.headers.get("Accept-Encoding", "identity"))
        return Answer(200, gzip.compress(bytes(MIB)), {"Content-Encoding": "gzip", "ETag": "tag"})

    with http_server(reply) as url:
        async with bucket_at(url) as bucket:
            try:
                outcome = await operation(bucket, tmp_path / "file")
            except StoreRefused as error:
                assert "encodes" in str(error)
            else:
                assert isinstance(outcome, int)  # the answer to a HEAD has no body
    assert set(asked) == {"identity"}


@every_operation
async def test_no_answer_is_read_without_end(operation: Operation, tmp_path: Path) -> None:
    status = 0
    with http_server(lambda request: Answer(status, bytes(MIB), {"ETag": "tag"}, repeat=ENDLESS)) as url:
        async with bucket_at(url) as bucket:
            for status in (200, 206, 400, 404, 503):  # noqa: B007 (the server answers with it)
                async with asyncio.timeout(PATIENCE):
                    with contextlib.suppress(StoreError):
                        outcome = await operation(bucket, tmp_path / "file")
                        assert not isinstance(outcome, bytes)


_TIME = "<LastModified>2026-01-01T00:00:00Z</LastModified>"
UNREADABLE = {
    "no XML": "<ListBucketResult><IsTruncated>false",
    "no key": f"<Contents>{_TIME}<Size>1</Size></Contents>",
    "no size": f"<Contents><Key>prefix</Key>{_TIME}</Contents>",
    "a size that is no number": f"<Contents><Key>prefix</Key>{_TIME}<Size>many</Size></Contents>",
    "a size below zero": f"<Contents><Key>prefix</Key>{_TIME}<Size>-1</Size></Contents>",
    "a size above all": f"<Contents><Key>prefix</Key>{_TIME}<Size>{2**63}</Size></Contents>",
    "a time that is no time": "<Contents><Key>prefix</Key><LastModified>soon</LastModified><Size>1</Size></Contents>",
    "no token for the next page": "<IsTruncated>true</IsTruncated>",
    "an upload without id": "<Upload><Key>prefix</Key></Upload>",
    "a part without number": "<Part><Size>1</Size><ETag>e</ETag></Part>",
    "a part with number 0": "<Part><PartNumber>0</PartNumber><Size>1</Size><ETag>e</ETag></Part>",
}
LISTINGS = [name for name in OPERATIONS if name.startswith("list")]


@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_listing_that_cannot_be_read(what: str) -> None:
    body = UNREADABLE[what]
    if "IsTruncated" not in body:
        body = f"<R><IsTruncated>false</IsTruncated>{body}</R>"
    elif what != "no XML":
        body = f"<R>{body}</R>"
    heard = 0
    with http_server(lambda request: Answer(200, body.encode())) as url:
        async with bucket_at(url) as bucket:
            for name in LISTINGS:
                try:
                    assert await OPERATIONS[name](bucket, Path()) == []
                except StoreUnreachable:
                    heard += 1
    assert heard >= 1


async def test_a_listing_that_does_not_end() -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    markers = "<NextKeyMarker>k</NextKeyMarker><NextPartNumberMarker>1</NextPartNumberMarker>"
    with http_server(lambda request: Answer(200, f"<R>{more}{markers}</R>".encode())) as url:
        async with bucket_at(url) as bucket:
            for name in LISTINGS:
                with pytest.raises(StoreUnreachable, match="do not end"):
                    await OPERATIONS[name](bucket, Path())


@pytest.mark.parametrize("item", ["", "<Contents><Key>prefix</Key><Size>1</Size></Contents>"])
async def test_a_listing_with_ever_new_tokens(item: str) -> None:
    requests = itertools.count(1)

    def reply(request: Request) -> Answer:
        number = min(next(requests), 9000)
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number}</NextContinuationToken>"
        markers = f"<NextKeyMarker>{number}</NextKeyMarker><NextPartNumberMarker>{number}</NextPartNumberMarker>"
        return Answer(200, f"<R>{more}{markers}{item}</R>".encode())

    settings = dataclasses.replace(SETTINGS, empty_pages=5, listed=5)
    with http_server(reply) as url:
        async with bucket_at(url, settings) as bucket:
            for name in LISTINGS if not item else ["list"]:
                with pytest.raises(StoreUnreachable, match="do not end"):
                    await OPERATIONS[name](bucket, Path())
    assert next(requests) <= 7 * len(LISTINGS)


async def test_a_listing_of_what_was_not_asked_for() -> None:
    key = f"<Contents><Key>{{}}</Key><Size>1</Size>{_TIME}</Contents>"
    body = "<R><IsTruncated>false</IsTruncated>" + key.format("prefix/1") + key.format("another/2") + "</R>"
    with http_server(lambda request: Answer(200, body.encode())) as url:
        async with bucket_at(url) as bucket:
            assert [item.key async for item in bucket.list("prefix")] == ["prefix/1"]


async def test_what_is_too_long_is_named(tmp_path: Path) -> None:
    with http_server(lambda request: Answer(200, bytes(MIB), repeat=16)) as url:
        async with bucket_at(url) as bucket:
            for asked in (bucket.get("key", max_size=2 * MIB), _all(bucket.list("p"))):
                with pytest.raises(AnswerTooLong):
                    await asked


async def test_a_range_has_exactly_its_bytes() -> None:
    body = bytes(range(100))
    answers = [
        Answer(200, body),  # the whole object instead of the range
        Answer(200, body[:10]),
        Answer(206, body[:10], {"Content-Range": "bytes 0-9/100"}),
        Answer(206, body[5:16], {"Content-Range": "bytes 5-15/100"}),
        Answer(206, body[5:14], {"Content-Range": "bytes 5-13/100"}),
    ]
    answer = Answer()
    with http_server(lambda request: answer) as url:
        async with bucket_at(url) as bucket:
            for answer in answers:  # noqa: B007 (the server answers with it)
                with pytest.raises(StoreUnreachable):
                    await bucket.get("key", 5, 10)
            answer = Answer(206, body[5:15], {"Content-Range": "bytes 5-14/100"})
            assert await bucket.get("key", 5, 10) == body[5:15]


async def test_a_record_is_read_up_to_its_limit() -> None:

    with http_server(lambda request: Answer(200, b" " * MIB, repeat=64)) as url:
        async with bucket_at(url) as bucket:
            with pytest.raises(DataError, match="has more than"):
                await read_record(bucket, "store.json", StoreRecord.from_json)


def _echo(request: Request) -> bytes:
    """What a hostile or chatty store may send: the request itself."""
    return f"<Error><Code>{request.path}</Code><Message>{request.path} {request.headers}</Message></Error>".encode()


BROKEN_OFF = {"Content-Length": "100000", "Connection": "close"}
FAILURES: dict[str, Callable[[Request], Answer | None]] = {
    "closed": lambda request: None,
    "broken off": lambda request: Answer(
        200, _echo(request), {"Content-Length": "100000", "ETag": "t", "Connection": "close"}
    ),
    "no XML": lambda request: Answer(200, _echo(request)[:-3], {"ETag": "t"}),
    "an error as XML": lambda request: Answer(200, _echo(request), {"ETag": "t"}),
    "redirect to itself": lambda request: Answer(302, headers={"Location": request.path}),
    "redirect with query": lambda request: Answer(307, headers={"Location": f"http://x.example{request.path}"}),
    "redirect to nonsense": lambda request: Answer(307, headers={"Location": f"http://{request.path}"}),
    **{
        f"status {status}": lambda request, status=status: Answer(status, _echo(request))  # type: ignore[misc]
        for status in (400, 401, 403, 404, 409, 412, 416, 500, 501, 503, 507)
    },
}


@every_operation
async def test_no_error_tells_a_signed_url(operation: Operation, tmp_path: Path) -> None:
    failure = FAILURES["closed"]
    with http_server(lambda request: failure(request)) as url:
        async with bucket_at(url) as bucket:
            for name, failure in FAILURES.items():  # noqa: B007 (the server answers with it)
                try:
                    await operation(bucket, tmp_path / "file")
                except StoreError as error:
                    assert has_no_secret(error), (name, told(error))


@every_operation
async def test_no_error_tells_a_signed_url_if_nobody_listens(operation: Operation, tmp_path: Path) -> None:
    async with bucket_at("http://127.0.0.1:9") as bucket:
        with pytest.raises(StoreUnreachable, match="connection refused") as caught:
            await operation(bucket, tmp_path / "file")
    assert has_no_secret(caught.value)


@every_operation
async def test_a_single_writer_sends_no_condition(operation: Operation, tmp_path: Path) -> None:
    """Backblaze B2 answers 501 to `If-None-Match`."""
    conditions: list[str] = []

    def reply(request: Request) -> Answer:
        conditions.extend(name for name in request.headers if name.lower().startswith("if-"))
        conditions.extend(["in the URL"] if "if-none-match" in request.path else [])
        return Answer(404 if request.method == "HEAD" else 200, b"", {"ETag": "t"})

    settings = dataclasses.replace(SETTINGS, conditional_writes=False)
    with http_server(reply) as url:
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("access", "secret")), settings)
        with contextlib.suppress(StoreError):
            await operation(bucket, tmp_path / "file")
        await bucket.close()
    assert conditions == []


async def test_a_single_writer_still_does_not_replace_what_is_there() -> None:
    with http_server(lambda request: Answer(200)) as url:
        settings = dataclasses.replace(SETTINGS, conditional_writes=False)
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("access", "secret")), settings)
        with pytest.raises(PreconditionFailed):
            await bucket.put("key", [b"body"], if_none_match=True)
        await bucket.close()
