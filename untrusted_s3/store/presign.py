"""Presigned URLs: signed by boto3 for each write, and once for all reads of an object while the URL is valid."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from yarl import URL

from untrusted_s3 import limits

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CACHED_URLS = 20_000


class Presigner:
    """Presigns for one bucket. `clock` gives the time in seconds since any fixed point."""

    def __init__(self, client: S3Client, bucket: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._bucket = bucket
        self._clock = clock
        self._gets: OrderedDict[str, tuple[URL, float]] = OrderedDict()

    def get(self, key: str) -> URL:
        """A URL that reads the object, any range of it (`Range` need not be signed); the same one while it is young."""
        cached = self._gets.get(key)
        now = self._clock()
        if cached is not None and now < cached[1]:
            self._gets.move_to_end(key)
            return cached[0]
        url = self._sign("get_object", limits.PRESIGNED_GET_LIFETIME, {"Key": key})
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
        return self._sign("put_object", lifetime, {"Key": key})

    def upload_part(self, key: str, upload_id: str, number: int) -> URL:
        """A URL that uploads one part."""
        parameters = {"Key": key, "UploadId": upload_id, "PartNumber": number}
        return self._sign("upload_part", limits.PRESIGNED_PUT_LIFETIME, parameters)

    def _sign(self, method: str, lifetime: int, parameters: Mapping[str, object]) -> URL:
        signed = self._client.generate_presigned_url(
            ClientMethod=method, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=lifetime
        )
        return URL(signed, encoded=True)
