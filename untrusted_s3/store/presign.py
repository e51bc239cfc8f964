"""Presigned URLs: one for each write, and one for all reads of an object while the URL is young."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from yarl import URL

from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.connection import S3Connection
from untrusted_s3.store.query_signing import QuerySigner

_DEFAULTS = StoreSettings()


class Presigner:
    """Presigns requests to one bucket.

    boto3's own `generate_presigned_url` takes 25 times as long as `QuerySigner`, which counts with small files. It is
    called once, to learn the bucket's URL.

    Attributes:
        base: The bucket's URL; ends in a slash.
    """

    def __init__(
        self,
        connection: S3Connection,
        bucket: str,
        settings: StoreSettings = _DEFAULTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives seconds since any fixed point."""
        self._settings = settings
        self._clock = clock
        self._gets: OrderedDict[str, tuple[URL, float]] = OrderedDict()
        example = connection.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
        self.base = example.partition("?")[0].removesuffix("key")
        self._parts = urlsplit(self.base)
        self._signer = QuerySigner(connection.credentials, connection.client.meta.region_name, self.base)

    def get(self, key: str) -> URL:
        """Return a URL that reads the object, or any range of it, for at least half of the setting `get_lifetime`.

        `Range` need not be signed.
        """
        cached = self._gets.get(key)
        now = self._clock()
        if cached is not None and now < cached[1]:
            self._gets.move_to_end(key)
            return cached[0]
        lifetime = self._settings.get_lifetime
        url = self._sign("GET", key, lifetime)
        self._gets[key] = (url, now + lifetime / 2)
        self._gets.move_to_end(key)
        if len(self._gets) > self._settings.cached_urls:
            self._gets.popitem(last=False)
        return url

    def forget(self, key: str) -> None:
        """Sign again at the next `get` of the key."""
        self._gets.pop(key, None)

    def put(self, key: str, lifetime: int, conditions: Mapping[str, str] | None = None) -> URL:
        """Return a URL that writes the object for `lifetime` seconds from now.

        The headers `conditions` are signed: the store refuses the URL without them.
        """
        return self._sign("PUT", key, lifetime, headers=conditions)

    def delete(self, key: str, lifetime: int) -> URL:
        """Return a URL that deletes the object for `lifetime` seconds from now."""
        return self._sign("DELETE", key, lifetime)

    def upload_part(self, key: str, upload_id: str, number: int, conditions: Mapping[str, str] | None = None) -> URL:
        """Return a URL that uploads one part. The headers `conditions` are signed."""
        query = {"uploadId": upload_id, "partNumber": str(number)}
        return self._sign("PUT", key, self._settings.put_lifetime, query, conditions)

    def complete(self, key: str, upload_id: str, lifetime: int) -> URL:
        """Return a URL that completes a multipart upload by POST, for `lifetime` seconds from now."""
        return self._sign("POST", key, lifetime, {"uploadId": upload_id})

    def _sign(
        self,
        method: str,
        key: str,
        lifetime: int,
        query: dict[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> URL:
        # No character of a key has to be quoted in a URL (store/layout.py).
        signed = self._signer.sign(method, key, lifetime, query, headers)
        base = self._parts
        return URL.build(
            scheme=base.scheme, authority=base.netloc, path=base.path + key, query_string=signed, encoded=True
        )
