"""The real store: boto3 for the control plane and signing, plain HTTP on presigned URLs for the data plane."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import aiohttp
import boto3
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from yarl import URL

from untrusted_s3 import limits
from untrusted_s3.errors import NoSuchKey, StoreError, StoreRefused, StoreUnreachable, UploadLost, UsageError
from untrusted_s3.store.bucket import Buffer, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.multipart import part_ranges, part_size
from untrusted_s3.store.presign import Presigner, S3Connection
from untrusted_s3.store.s3_errors import age_of, check_clock, refusal, translate
from untrusted_s3.threads import in_thread

if TYPE_CHECKING:
    pass

Result = TypeVar("Result")
_REGION = "us-east-1"
_TRIES = 5
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# What no whole answer lacks. boto3 takes one whose head is cut short for one that says nothing: an empty listing.
_TELLING = {
    "head_object": "ContentLength",
    "list_objects_v2": "IsTruncated",
    "list_multipart_uploads": "IsTruncated",
    "list_parts": "IsTruncated",
    "create_multipart_upload": "UploadId",
    "upload_part_copy": "CopyPartResult",
    "complete_multipart_upload": "ETag",
}
_ERROR_CODE = re.compile(rb"<Code>([A-Za-z]+)</Code>")


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Explicit credentials; where there are none, boto3's own chain finds them."""

    access_key: str
    secret_key: str


def connect(endpoint_url: str | None, credentials: S3Credentials | None = None) -> S3Connection:
    """A boto3 client that S3 compatibles understand: no default checksum trailers, path-style keys at an endpoint.

    Raises UsageError for an endpoint URL that is none, StoreRefused where there are no credentials.
    """
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=10,
        read_timeout=limits.STORE_TIMEOUT,
        max_pool_connections=16,
        # No proxy of the environment reaches this machine's own loopback interface.
        proxies={} if urlsplit(endpoint_url or "").hostname in _LOOPBACK else None,
    )
    try:
        session = boto3.session.Session(
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
        )
        region = session.region_name or _REGION
        client = session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError
        return S3Connection(client, found)
    except ValueError as error:
        raise UsageError(f"--endpoint-url: {error}") from error
    except BotoCoreError as error:
        raise translate(error, "set up S3") from error


class _Pieces(Payload):
    """A request body in pieces that are sent one after the other, without being joined."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        super().__init__(pieces)
        self._size = sum(len(piece) for piece in pieces)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            await writer.write(piece)


class S3Bucket:
    """One bucket and prefix, for use within one event loop. Implements `store.bucket.Bucket`.

    `requests` counts what was sent, by HTTP method or S3 operation. `client` and `presigner` are for probes, which
    look at what the methods here hide.
    """

    def __init__(self, location: StoreLocation, connection: S3Connection) -> None:
        self.location = location
        self.requests: dict[str, int] = {}
        self.client = connection.client
        self.presigner = Presigner(connection, location.bucket)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2 * limits.CONCURRENT_UPLOADS + limits.CONCURRENT_DOWNLOADS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=limits.STORE_TIMEOUT),
            # Ceph refuses presigned requests with an unsigned Content-Type.
            skip_auto_headers={"Content-Type", "Accept-Encoding", "Accept"},
            auto_decompress=False,
        )

    @classmethod
    async def open(
        cls,
        location: StoreLocation,
        endpoint_url: str | None = None,
        credentials: S3Credentials | None = None,
        *,
        create_bucket: bool = False,
    ) -> S3Bucket:
        """The bucket, after one request has shown that it is there and that credentials and clock are right.

        Raises StoreRefused or StoreUnreachable with a message that says what to do.
        """
        bucket = cls(location, connect(endpoint_url, credentials))
        try:
            await bucket._check(create_bucket)
        except BaseException:
            await bucket.close()
            raise
        return bucket

    async def _check(self, create_bucket: bool) -> None:
        name = self.location.bucket
        try:
            answer = await self._call("head_bucket")
        except NoSuchKey:
            # A HEAD has no body, so a missing bucket is a bare 404.
            if not create_bucket:
                raise refusal(404, "NoSuchBucket", f"bucket {name}") from None
            region = self.client.meta.region_name
            # Amazon wants to be told every region but this one, and refuses to be told this one.
            constraint = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != _REGION else {}
            answer = await self._call("create_bucket", **constraint)
        except StoreRefused:
            # A HEAD tells no reason; a listing does.
            answer = await self._call("list_objects_v2", Prefix=self.location.prefix, MaxKeys=1)
        check_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))

    async def close(self) -> None:
        """Closes all connections to the store."""
        await self._session.close()
        self.client.close()

    # Data plane

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        full_key = self.location.prefix + key
        if size == 0:
            return b""  # no Range can say it
        headers = {}
        if start or size is not None:
            headers["Range"] = f"bytes={start}-{'' if size is None else start + size - 1}"

        async def attempt() -> bytes:
            try:
                _, body = await self._http("GET", self.presigner.get(full_key), key, headers=headers)
            except StoreRefused:
                self.presigner.forget(full_key)
                _, body = await self._http("GET", self.presigner.get(full_key), key, headers=headers)
            if size is not None and len(body) != size:
                raise StoreUnreachable(f"GET {key}: {len(body)} bytes instead of {size}")
            return body

        return await self._retry(attempt)

    async def put(
        self,
        key: str,
        body: Sequence[Buffer],
        *,
        if_none_match: bool = False,
        lifetime: int = limits.PRESIGNED_PUT_LIFETIME,
    ) -> None:
        # Signed once for all tries: a late one must be refused by the store's clock.
        url = self.presigner.put(self.location.prefix + key, lifetime)
        headers = {"If-None-Match": "*"} if if_none_match else {}
        await self._retry(lambda: self._http("PUT", url, key, headers=headers, body=body))

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        async def attempt() -> str:
            url = self.presigner.upload_part(self.location.prefix + key, upload_id, number)
            headers, _ = await self._http("PUT", url, key, body=body)
            return _required(headers, "ETag", f"upload_part {key}")

        return await self._retry(attempt)

    async def _http(
        self, method: str, url: URL, key: str, headers: dict[str, str] | None = None, body: Sequence[Buffer] = ()
    ) -> tuple[Any, bytes]:
        what = f"{method} {key}"
        self.requests[method] = self.requests.get(method, 0) + 1
        data = _Pieces(body) if method in ("PUT", "POST") else None
        # A server that stops to read is noticed by no timeout of the session: those are for what it sends.
        patience = limits.STORE_TIMEOUT + sum(map(len, body)) / limits.SLOWEST_UPLOAD if data is not None else None
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(method, url, headers=headers, data=data) as response,
            ):
                content = await response.read()
                if response.status < 300:
                    return response.headers, content
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise StoreUnreachable(f"the store cannot be reached ({what}): {error or type(error).__name__}") from error
        code = _ERROR_CODE.search(content[:4096])
        raise refusal(response.status, code[1].decode() if code else "", what)

    async def _retry(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        began = time.monotonic()
        for number in range(_TRIES):
            try:
                return await attempt()
            except StoreUnreachable:
                # A store that hangs has had patience enough in one try; whoever waits for it shall hear so.
                if number == _TRIES - 1 or time.monotonic() - began >= limits.STORE_TIMEOUT:
                    raise
                # Full jitter: many writers that failed together must not come back together.
                await asyncio.sleep(random.uniform(0, 0.2 * 2**number))  # noqa: S311
        raise AssertionError("unreachable")

    # Control plane

    async def delete(self, key: str) -> None:
        await self._call("delete_object", Key=self.location.prefix + key)

    async def size(self, key: str) -> int | None:
        try:
            answer = await self._call("head_object", Key=self.location.prefix + key)
        except NoSuchKey:
            return None
        return int(answer["ContentLength"])

    async def list(self, prefix: str) -> AsyncIterator[ObjectSummary]:
        async for page in self._pages(prefix):
            for item in page.get("Contents", []):
                age = age_of(item.get("LastModified"), page["ResponseMetadata"]["HTTPHeaders"].get("date"))
                yield ObjectSummary(item["Key"][len(self.location.prefix) :], item["Size"], age)

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        async for page in self._pages(prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"][len(self.location.prefix) :]

    async def _pages(self, prefix: str, **parameters: str) -> AsyncIterator[Any]:
        token: dict[str, str] = {}
        while True:
            answer = await self._call("list_objects_v2", Prefix=self.location.prefix + prefix, **parameters, **token)
            yield answer
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    async def upload_file(self, key: str, path: Path) -> None:
        size = path.stat().st_size
        parts = part_ranges(size, part_size(size))
        if len(parts) == 1:
            await self.put(key, [await asyncio.to_thread(path.read_bytes)])
            return
        upload_id = await self.create_multipart_upload(key)
        # Signed now: an upload that stalled must be refused by the store's clock (index/log.py, rule 3).
        completion = self.presigner.complete(self.location.prefix + key, upload_id, limits.FILE_UPLOAD_LIFETIME)
        slots = asyncio.Semaphore(limits.CONCURRENT_PART_UPLOADS)

        async def upload(number: int, start: int, end: int) -> str:
            async with slots:
                return await self.upload_part(
                    key, upload_id, number, [await asyncio.to_thread(_read, path, start, end)]
                )

        uploads = [asyncio.ensure_future(upload(number, *part)) for number, part in enumerate(parts, 1)]
        try:
            await self._complete_presigned(key, completion, await asyncio.gather(*uploads), size)
        except BaseException:
            for one in uploads:
                one.cancel()
            await asyncio.gather(*uploads, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await self.abort_multipart_upload(key, upload_id)
            raise

    async def _complete_presigned(self, key: str, url: URL, etags: Sequence[str], size: int) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()

        async def attempt() -> None:
            try:
                _, answer = await self._http("POST", url, key, body=[body])
            except (NoSuchKey, UploadLost):
                if await self.size(key) != size:  # else an earlier try succeeded, and its answer was lost
                    raise
                return
            if b"<Error>" in answer:  # Amazon says 200 before it knows
                raise StoreUnreachable(f"the store could not complete {key}: {answer[:300].decode(errors='replace')}")

        await self._retry(attempt)

    async def download_file(self, key: str, path: Path) -> None:
        # Not by boto3's transfer: it waits for ever where an answer breaks off in its head.
        size = await self.size(key)
        if size is None:
            raise NoSuchKey(f"{key}: no such object")
        parts = part_ranges(size, limits.MIN_PART_SIZE)
        with path.open("wb") as file:
            for number in range(0, len(parts), limits.CONCURRENT_PART_UPLOADS):
                some = parts[number : number + limits.CONCURRENT_PART_UPLOADS]
                for body in await asyncio.gather(*(self.get(key, start, end - start) for start, end in some)):
                    await asyncio.to_thread(file.write, body)

    async def create_multipart_upload(self, key: str) -> str:
        answer = await self._call("create_multipart_upload", Key=self.location.prefix + key)
        return _required(answer, "UploadId", f"create_multipart_upload {key}")

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        answer = await self._call(
            "upload_part_copy",
            Key=self.location.prefix + key,
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self.location.bucket, "Key": self.location.prefix + source_key},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        return _required(answer.get("CopyPartResult", {}), "ETag", f"upload_part_copy {key}")

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        marker: dict[str, str] = {}
        while True:
            answer = await self._call("list_multipart_uploads", Prefix=self.location.prefix + prefix, **marker)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            for upload in answer.get("Uploads", []):
                key = upload["Key"][len(self.location.prefix) :]
                yield MultipartUpload(key, upload["UploadId"], age_of(upload.get("Initiated"), date))
            if not answer.get("IsTruncated"):
                return
            # SeaweedFS gives only the second, and needs only that.
            markers = {"KeyMarker": answer.get("NextKeyMarker"), "UploadIdMarker": answer.get("NextUploadIdMarker")}
            marker = {name: value for name, value in markers.items() if value}

    async def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        marker: dict[str, int] = {}
        while True:
            try:
                answer = await self._call("list_parts", Key=self.location.prefix + key, UploadId=upload_id, **marker)
            except NoSuchKey as error:  # what Ceph says of an upload that is gone
                raise UploadLost(str(error)) from error
            for part in answer.get("Parts", []):
                yield UploadedPart(part["PartNumber"], part["Size"], part["ETag"])
            if not answer.get("IsTruncated"):
                return
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        await self._call(
            "complete_multipart_upload",
            Key=self.location.prefix + key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
        )

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        try:
            await self._call("abort_multipart_upload", Key=self.location.prefix + key, UploadId=upload_id)
        except (NoSuchKey, UploadLost):
            pass

    async def _call(self, operation: str, **parameters: Any) -> Any:
        """One S3 operation on the bucket by boto3, in a thread."""
        self.requests[operation] = self.requests.get(operation, 0) + 1
        for _ in range(_TRIES):
            answer = await self._run(getattr(self.client, operation), Bucket=self.location.bucket, **parameters)
            if _TELLING.get(operation, "ResponseMetadata") in answer:
                return answer
        raise StoreUnreachable(f"the store's answers to {operation} are cut short")

    async def _run(self, function: Callable[..., Any], *args: Any, **parameters: Any) -> Any:
        try:
            return await in_thread(function, *args, **parameters)
        except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
            what = parameters.get("Key", self.location.bucket)
            raise translate(error, f"{function.__name__} {what}") from error


def _read(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _required(answer: Mapping[str, Any], name: str, what: str) -> str:
    if name not in answer:
        raise StoreRefused(f"the store's answer to {what} lacks its {name}")
    return str(answer[name])
