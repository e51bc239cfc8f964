"""The bucket of a real S3 server: boto3 for control and signing, HTTP on presigned URLs for data."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from xml.sax.saxutils import escape

from yarl import URL

from untrusted_s3.errors import (
    AccessDenied,
    AnswerTooLong,
    AnswerTooShort,
    ChecksumWanted,
    ConditionalWritesUnsupported,
    CredentialsRefused,
    NoSuchKey,
    OperationUnsupported,
    PreconditionFailed,
    RequestRefused,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
)
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.answers import error_code
from untrusted_s3.store.bucket import MAX_WHOLE_OBJECT, Buffer, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.checksums import md5_header
from untrusted_s3.store.connection import DEFAULT_REGION, S3Connection, S3Credentials, connect
from untrusted_s3.store.control_plane import ControlPlane, required
from untrusted_s3.store.data_plane import DataPlane
from untrusted_s3.store.deletions import Deletions
from untrusted_s3.store.format import FILE_UPLOAD_LIFETIME, PART_GRID
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.multipart import part_ranges, part_size
from untrusted_s3.store.network import proxies_for
from untrusted_s3.store.pages import (
    Page,
    check_range,
    read_directories,
    read_level,
    read_objects,
    read_parts,
    read_size,
    read_uploads,
)
from untrusted_s3.store.presign import Presigner
from untrusted_s3.store.retries import retry
from untrusted_s3.store.s3_errors import check_clock, refusal
from untrusted_s3.store.transfer import receive_parts, send_parts
from untrusted_s3.threads import in_thread

Result = TypeVar("Result")

_DEFAULTS = StoreSettings()
_DATE_STEP: Final = 3.0

# A write with this condition succeeds only if the key is free.
_CONDITION: Final = "*"
_CONDITION_HEADERS: Final = {"If-None-Match": _CONDITION}
_CONDITION_PARAMETERS: Final = {"IfNoneMatch": _CONDITION}


@contextlib.contextmanager
def _naming_the_condition(conditional: bool) -> Iterator[None]:
    """Say of a conditional write that the store does not implement that it is the condition."""
    try:
        yield
    except OperationUnsupported as error:
        if not conditional:
            raise
        raise ConditionalWritesUnsupported("the store does not take conditional writes (If-None-Match)") from error


class S3Bucket:
    """One bucket and prefix, for use within one event loop. Implements `store.bucket.Bucket`.

    Attributes:
        location: The bucket and the prefix.
        requests: How many requests were sent, by HTTP method or S3 operation.
        deletions: Whether the credentials may delete, as far as that is known.
        client: The boto3 client.
        presigner: Makes the URLs of the data plane.
    """

    def __init__(self, location: StoreLocation, connection: S3Connection, settings: StoreSettings = _DEFAULTS) -> None:
        self.location = location
        self.requests: Counter[str] = Counter()
        self.deletions = Deletions()
        self._wants_checksums = False
        self.client = connection.client
        self.presigner = Presigner(connection, location.bucket, settings)
        self._connection = connection
        self._settings = settings
        proxies = proxies_for(self.presigner.base)
        proxy = proxies.get(URL(self.presigner.base).scheme)
        self._data = DataPlane(settings, self.requests, connection.network, proxy, connection.http.clock)
        self._control = ControlPlane(connection.client, location.bucket, self.requests)

    @property
    def received(self) -> int:
        """How many bytes of objects the store has sent. Providers bill them as egress."""
        return self._data.received

    @classmethod
    async def open(
        cls,
        location: StoreLocation,
        endpoint_url: str | None = None,
        credentials: S3Credentials | None = None,
        *,
        create_bucket: bool = False,
        settings: StoreSettings = _DEFAULTS,
    ) -> Self:
        """Return the bucket, after requests have shown its region, and that it, credentials and clock are right.

        Raises InvalidEndpoint, NoSuchBucket, StoreRefused or StoreUnreachable.
        """
        connection = connect(endpoint_url, credentials, settings)
        bucket = cls(location, connection, settings)
        try:
            try:
                await bucket._check(create_bucket)
            except StoreRefused:
                if connection.http.region in (None, connection.client.meta.region_name):
                    raise
            region = connection.http.region
            if region not in (None, connection.client.meta.region_name):
                # Signatures hold for one region.
                await bucket.close()
                bucket = cls(location, connect(endpoint_url, credentials, settings, region=region), settings)
                await bucket._check(create_bucket)
        except BaseException:
            await bucket.close()
            raise
        return bucket

    async def _check(self, create_bucket: bool) -> None:
        try:
            answer = await self.call("head_bucket")
        except NoSuchKey:
            # A HEAD has no body, so a missing bucket is a bare 404.
            if not create_bucket:
                raise refusal(404, "NoSuchBucket", f"bucket {self.location.bucket}") from None
            region = self.client.meta.region_name
            # Amazon requires the name of every region but this one, and refuses the name of this one.
            constraint = (
                {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != DEFAULT_REGION else {}
            )
            answer = await self.call("create_bucket", **constraint)
        except StoreRefused:
            # A HEAD gives no reason; a listing does.
            answer = await self.call("list_objects_v2", Prefix=self.location.prefix, MaxKeys=1)
        check_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))

    @property
    def in_doubt(self) -> bool:
        """Whether any object may be lost, so that what names it has to be compared with what is there."""
        return False

    def checked(self) -> None:
        """Note that all was compared. Raises OSError."""

    async def close(self) -> None:
        """Close all connections to the store."""
        await self._data.close()
        self._connection.close()

    async def call(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """Send one S3 operation on the bucket, given by boto3's name, and return the answer. Raises StoreError."""
        return await self._repeat(lambda: self._control.call(operation, **parameters))

    async def _repeat(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat a request that the store did not answer, and once one that it refused for the credentials."""

        async def with_fresh_credentials() -> Result:
            used = self._connection.generation
            try:
                return await attempt()
            except (CredentialsRefused, AccessDenied):
                if not await in_thread(self._connection.renew, used):
                    raise
                return await attempt()

        return await retry(with_fresh_credentials, self._settings)

    def _key(self, key: str) -> str:
        return self.location.prefix + key

    def now(self) -> float:
        return self._connection.http.clock()

    # Data

    async def get(
        self, key: str, start: int = 0, size: int | None = None, *, max_size: int = MAX_WHOLE_OBJECT
    ) -> bytes:
        if size == 0:
            return b""  # no Range can say it
        full_key, what = self._key(key), f"GET {key}"
        headers = {}
        if start or size is not None:
            headers["Range"] = f"bytes={start}-{'' if size is None else start + size - 1}"

        async def read() -> bytes:
            answer = await self._data.get(
                self.presigner.get(full_key), what, headers, max_size if size is None else size
            )
            check_range(answer.status, answer.headers, start, what)
            return answer.body

        async def attempt() -> bytes:
            try:
                body = await read()
            except AnswerTooLong as error:
                if size is not None:
                    raise StoreUnreachable(f"{what}: more than {size} bytes") from error
                raise
            except StoreRefused:
                # Temporary credentials can end the life of a URL early.
                self.presigner.forget(full_key)
                body = await read()
            if size is not None and len(body) != size:
                raise AnswerTooShort(f"{what}: {len(body)} bytes instead of {size}")
            return body

        return await self._repeat(attempt)

    async def put(
        self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int | None = None
    ) -> None:
        if if_none_match and not self._settings.conditional_writes:
            if await self.size(key) is not None:
                raise PreconditionFailed(f"PUT {key}: the key is taken")
            if_none_match = False
        lifetime = self._settings.put_lifetime if lifetime is None else lifetime
        deadline = time.monotonic() + lifetime

        async def send(checksum: Mapping[str, str]) -> None:
            headers = {**(_CONDITION_HEADERS if if_none_match else {}), **checksum}
            # Signed once for all tries: the store's clock must refuse a late one.
            signed = self._connection.generation
            url = self.presigner.put(self._key(key), lifetime if not checksum else left(), headers)

            async def attempt() -> None:
                nonlocal signed, url
                if signed != self._connection.generation:  # the store refused the credentials, and so the write
                    signed = self._connection.generation
                    url = self.presigner.put(self._key(key), left(), headers)
                await self._data.send("PUT", url, f"PUT {key}", body, headers)

            await self._repeat(attempt)

        def left() -> int:
            return max(int(deadline - time.monotonic()), 1)

        with _naming_the_condition(if_none_match):
            await self._write(body, send)

    async def _write(self, body: Sequence[Buffer], send: Callable[[Mapping[str, str]], Awaitable[Result]]) -> Result:
        """Call `send` with the headers of a checksum if the store wants one, and with none as long as it does not."""
        if not self._wants_checksums:
            with contextlib.suppress(ChecksumWanted):
                return await send({})
        result = await send(await in_thread(md5_header, body))
        self._wants_checksums = True
        return result

    async def put_late(self, key: str, body: Sequence[Buffer], lifetime: int, wait: float) -> None:
        """Send one PUT `wait` seconds after it was signed for `lifetime` seconds. Raises StoreError."""
        headers = md5_header(body) if self._wants_checksums else {}
        url = self.presigner.put(self._key(key), lifetime, headers)
        await asyncio.sleep(wait)
        await self._data.send("PUT", url, f"PUT {key}", body, headers)

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        async def send(checksum: Mapping[str, str]) -> str:
            async def attempt() -> str:
                url = self.presigner.upload_part(self._key(key), upload_id, number, checksum)
                answer = await self._data.send("PUT", url, f"PUT {key}", body, checksum)
                return required(answer.headers, "ETag", f"upload_part {key}")

            return await self._repeat(attempt)

        return await self._write(body, send)

    # Objects

    async def delete(self, key: str, *, lifetime: int | None = None) -> None:
        if lifetime is None:
            with self.deletions.of_object(key):
                await self.call("delete_object", Key=self._key(key))
            return
        with self.deletions.of_object(key):
            # Signed once for all tries: the store's clock must refuse a late one.
            url, ends = self.presigner.delete(self._key(key), lifetime), time.time() + lifetime
            try:
                await retry(lambda: self._data.send("DELETE", url, f"DELETE {key}", []), self._settings)
            except NoSuchKey:
                pass
            except AccessDenied as error:
                # Stores say the same of a URL whose time is over. `Date` has whole seconds.
                if self.now() > ends - _DATE_STEP:
                    raise RequestRefused(f"{error}, or it came too late") from error
                raise

    async def size(self, key: str) -> int | None:
        try:
            answer = await self.call("head_object", Key=self._key(key))
        except NoSuchKey:
            return None
        return read_size(answer)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        start = {"StartAfter": self._key(start_after)} if start_after else {}
        asked = self._key(prefix)
        read = partial(read_objects, asked=asked, removed=self.location.prefix)
        async for item in self._pages("list_objects_v2", prefix, read, {"Prefix": asked, **start}):
            yield item

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        asked = self._key(prefix)
        read = partial(read_directories, asked=asked, removed=self.location.prefix)
        async for item in self._pages("list_objects_v2", prefix, read, {"Prefix": asked, "Delimiter": "/"}):
            yield item

    async def list_level(self, prefix: str) -> AsyncIterator[str]:
        asked = self._key(prefix)
        read = partial(read_level, asked=asked, removed=self.location.prefix)
        async for item in self._pages("list_objects_v2", prefix, read, {"Prefix": asked, "Delimiter": "/"}):
            yield item

    async def _pages(
        self, operation: str, what: str, read: Callable[[Mapping[str, Any]], Page[Result]], parameters: dict[str, Any]
    ) -> AsyncIterator[Result]:
        following: Mapping[str, Any] = {}

        async def attempt() -> Page[Result]:
            return read(await self._control.call(operation, **parameters, **following))

        listed = empty = 0
        while True:
            page = await self._repeat(attempt)
            for item in page.items:
                yield item
            if not page.following:
                return
            listed += len(page.items)
            empty = 0 if page.items else empty + 1
            if page.following == following or empty > self._settings.empty_pages or listed > self._settings.listed:
                raise StoreUnreachable(f"the store's answers to {operation} {what} do not end")
            following = page.following

    # Local files

    async def upload_file(self, key: str, path: Path, *, lifetime: int = FILE_UPLOAD_LIFETIME) -> None:
        size = path.stat().st_size
        parts = part_ranges(size, part_size(size))
        concurrency = self._settings.concurrent_parts
        if len(parts) == 1:
            await send_parts(path, parts, lambda _, body: self.put(key, [body]), concurrency)
            return
        upload_id = await self.create_multipart_upload(key)
        # Signed now: the store's clock must refuse the completion of an upload that stalled (index/log.py, rule 3).
        completion = self.presigner.complete(self._key(key), upload_id, lifetime)
        try:
            etags = await send_parts(
                path, parts, lambda number, body: self.upload_part(key, upload_id, number, [body]), concurrency
            )
            await self._complete_presigned(key, completion, etags, size)
        except BaseException:
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
                answer = (await self._data.send("POST", url, f"POST {key}", [body])).body
            except (NoSuchKey, UploadLost):
                if await self.size(key) != size:  # else an earlier try succeeded, and its answer was lost
                    raise
                return
            if b"<Error>" in answer:  # Amazon says 200 before it knows
                raise StoreUnreachable(f"the store could not complete {key} ({error_code(answer)})")

        await retry(attempt, self._settings)

    async def download_file(self, key: str, path: Path) -> None:
        # Not by boto3's transfer: it waits without end if an answer breaks off in its head.
        size = await self.size(key)
        if size is None:
            raise NoSuchKey(f"{key}: no such object")
        parts = part_ranges(size, PART_GRID.min_part_size)
        await receive_parts(
            path, parts, lambda start, end: self.get(key, start, end - start), self._settings.concurrent_parts
        )

    # Multipart uploads

    async def create_multipart_upload(self, key: str) -> str:
        answer = await self.call("create_multipart_upload", Key=self._key(key))
        return required(answer, "UploadId", f"create_multipart_upload {key}")

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        answer = await self.call(
            "upload_part_copy",
            Key=self._key(key),
            UploadId=upload_id,
            PartNumber=number,
            CopySource={"Bucket": self.location.bucket, "Key": self._key(source_key)},
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        return required(answer.get("CopyPartResult", {}), "ETag", f"upload_part_copy {key}")

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        asked = self._key(prefix)
        read = partial(read_uploads, asked=asked, removed=self.location.prefix)
        async for item in self._pages("list_multipart_uploads", prefix, read, {"Prefix": asked}):
            yield item

    async def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        upload = {"Key": self._key(key), "UploadId": upload_id}
        try:
            async for part in self._pages("list_parts", key, read_parts, upload):
                yield part
        except NoSuchKey as error:  # Ceph's answer for an upload that is gone
            raise UploadLost(str(error)) from error

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        conditional = self._settings.conditional_writes
        with _naming_the_condition(conditional):
            await self.call(
                "complete_multipart_upload",
                Key=self._key(key),
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **(_CONDITION_PARAMETERS if conditional else {}),
            )

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        with self.deletions.of_upload(key), contextlib.suppress(NoSuchKey, UploadLost):
            await self.call("abort_multipart_upload", Key=self._key(key), UploadId=upload_id)
