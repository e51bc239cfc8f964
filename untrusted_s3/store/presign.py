"""Presigned URLs: signed by boto3 for each write, and once for all reads of an object while the URL is valid."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from untrusted_s3 import limits

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CACHED_URLS = 20_000


@dataclass(frozen=True, slots=True)
class S3Connection:
    """A boto3 client, and the credentials that it signs with (refreshed by boto3 where they are temporary)."""

    client: S3Client
    credentials: Credentials


class Presigner:
    """Presigns for one bucket. `clock` gives the time in seconds since any fixed point.

    boto3's own `generate_presigned_url` takes three times as long as the signer below it, and it is a large part of
    the cost of a small file; so it is asked once where the bucket is, and the signer is used directly.
    """

    def __init__(self, connection: S3Connection, bucket: str, clock: Callable[[], float] = time.time) -> None:
        self._credentials = connection.credentials
        self._region = connection.client.meta.region_name
        self._clock = clock
        self._gets: OrderedDict[str, tuple[URL, float]] = OrderedDict()
        example = connection.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
        self._base = example.partition("?")[0].removesuffix("key")

    def get(self, key: str) -> URL:
        """A URL that reads the object, any range of it (`Range` need not be signed); the same one while it is young."""
        cached = self._gets.get(key)
        now = self._clock()
        if cached is not None and now < cached[1]:
            self._gets.move_to_end(key)
            return cached[0]
        url = self._sign("GET", key, limits.PRESIGNED_GET_LIFETIME)
        self._gets[key] = (url, now + limits.PRESIGNED_GET_LIFETIME / 2)
        self._gets.move_to_end(key)
        if len(self._gets) > _CACHED_URLS:
            self._gets.popitem(last=False)
        return url

    def forget(self, key: str) -> None:
        """Signs anew at the next `get`: temporary credentials can end a URL's life early."""
        self._gets.pop(key, None)

    def put(self, key: str, lifetime: int) -> URL:
        """A URL that writes the object for `lifetime` seconds from now (`If-None-Match` need not be signed)."""
        return self._sign("PUT", key, lifetime)

    def upload_part(self, key: str, upload_id: str, number: int) -> URL:
        """A URL that uploads one part."""
        query = {"uploadId": upload_id, "partNumber": str(number)}
        return self._sign("PUT", key, limits.PRESIGNED_PUT_LIFETIME, query)

    def complete(self, key: str, upload_id: str, lifetime: int) -> URL:
        """A URL that completes a multipart upload by POST, for `lifetime` seconds from now."""
        return self._sign("POST", key, lifetime, {"uploadId": upload_id})

    def _sign(self, method: str, key: str, lifetime: int, query: dict[str, str] | None = None) -> URL:
        # Keys consist of characters that no URL has to quote (store/layout.py).
        request = AWSRequest(method, self._base + key, params=query or {})
        signer = S3SigV4QueryAuth(self._credentials.get_frozen_credentials(), "s3", self._region, lifetime)
        signer.add_auth(request)
        return URL(str(request.url), encoded=True)
