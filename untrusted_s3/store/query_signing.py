"""Presigned URLs by AWS Signature Version 4, in the form for S3 with the signature in the query.

The algorithm: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. The URLs are those of
botocore (v1.44.5 botocore/auth.py, S3SigV4QueryAuth), byte for byte. botocore derives the key of the day for each URL
and makes objects of the request and its headers, which takes more than ten times as long.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_SERVICE: Final = "s3"
_END_OF_SCOPE: Final = "aws4_request"
_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
_HASH: Final = "sha256"


class _Scope(NamedTuple):
    """What all URLs that are signed with the same credentials on the same day (UTC) share.

    Attributes:
        credentials: What they are signed with.
        date: The day.
        name: The day, the region and the service.
        begin: The query from its beginning to the credential.
        token: The parameter that carries the session token; empty if there is none.
        signature: A signature of nothing yet, to be copied.
    """

    credentials: ReadOnlyCredentials
    date: str
    name: str
    begin: str
    token: str
    signature: hmac.HMAC


class QuerySigner:
    """Signs requests to one bucket in one region, in one thread."""

    def __init__(
        self, credentials: Credentials, region: str, base: str, clock: Callable[[], float] = time.time
    ) -> None:
        """`base` is what the URLs of all objects begin with; `clock` gives seconds since 1970."""
        self._credentials = credentials
        self._region = region
        self._path = urlsplit(base).path
        headers = S3SigV4QueryAuth(credentials, _SERVICE, region).headers_to_sign(AWSRequest("GET", base))
        self._host = ("host", str(headers["host"]))
        self._clock = clock
        self._second = -1
        self._time = ""
        self._scope: _Scope | None = None

    def sign(
        self,
        method: str,
        key: str,
        lifetime: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Return the query of a URL that is good for `lifetime` seconds from now, if the request has `headers`.

        No character of the key may need quoting in a URL. The headers are end-to-end ones, without Host and
        X-Amz-Content-SHA256. Blocks while botocore refreshes the credentials.
        """
        second = int(self._clock())
        if second != self._second:
            self._second, self._time = second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = self._current_scope()
        signed = [self._host]
        if headers:
            signed += ((name.lower(), " ".join(value.split())) for name, value in headers.items())
            signed.sort()
        names = ";".join([name for name, _ in signed])
        head = f"{scope.begin}&X-Amz-Date={self._time}&X-Amz-Expires={lifetime}"
        tail = f"X-Amz-SignedHeaders={names.replace(';', '%3B')}"
        # The parameters are sorted where they are signed, but not in the URL.
        if not query:
            asked, sorted_query = "", f"{head}{scope.token}&{tail}"
        else:
            parameters = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items()]
            asked = "&".join(parameters) + "&"
            parameters += f"{head}{scope.token}&{tail}".split("&")
            sorted_query = "&".join(sorted(parameters, key=lambda parameter: parameter.split("=", 1)))
        lines = "".join([f"{name}:{value}\n" for name, value in signed])
        request = f"{method}\n{self._path}{key}\n{sorted_query}\n{lines}\n{names}\n{_PAYLOAD}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = scope.signature.copy()
        signature.update(f"{_ALGORITHM}\n{self._time}\n{scope.name}\n{digest}".encode())
        return f"{asked}{head}&{tail}{scope.token}&X-Amz-Signature={signature.hexdigest()}"

    def _current_scope(self) -> _Scope:
        credentials = self._credentials.get_frozen_credentials()
        date = self._time[:8]
        scope = self._scope
        if scope is None or scope.date != date or scope.credentials != credentials:
            names = (date, self._region, _SERVICE, _END_OF_SCOPE)
            name = "/".join(names)
            token = credentials.token
            key = f"AWS4{credentials.secret_key}".encode()
            for part in names:
                key = hmac.digest(key, part.encode(), _HASH)
            self._scope = scope = _Scope(
                credentials,
                date,
                name,
                f"X-Amz-Algorithm={_ALGORITHM}&X-Amz-Credential={quote(f'{credentials.access_key}/{name}', safe='')}",
                f"&X-Amz-Security-Token={quote(token, safe='')}" if token is not None else "",
                hmac.new(key, digestmod=_HASH),
            )
        return scope
