"""HTTP for boto3: its requests are sent here, so that answers are bounded and no redirect is followed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import urllib3.exceptions
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from untrusted_s3.store.answers import MAX_ERROR_SIZE, MAX_PAGE_SIZE, check_head, too_long, unreachable
from untrusted_s3.store.clock import StoreClock
from untrusted_s3.store.listed_contents import take_contents
from untrusted_s3.units import KIB

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK = 64 * KIB
_REGION = re.compile(r"[a-z0-9-]{1,64}")
_REGION_ELEMENT = re.compile(rb"<Region>([a-z0-9-]{1,64})</Region>")


class _Body:
    """A body that has been read; botocore takes it for a response of urllib3."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *args: Any, **parameters: Any) -> Iterator[bytes]:
        yield self._body


class BotoHTTP:
    """Sends the requests of one boto3 client.

    Attributes:
        region: The bucket's region, if an answer has named it.
        clock: The store's clock, by the dates of answers.
    """

    def __init__(self, session: URLLib3Session) -> None:
        self.region: str | None = None
        self.clock = StoreClock()
        self._session = session

    def attach(self, client: S3Client) -> None:
        """Send all requests of the client from now on."""
        client.meta.events.register("before-send.s3", self._send)
        client.meta.events.register("before-call.s3", _stay_at_the_endpoint)
        client.meta.events.register("before-parse.s3.ListObjectsV2", take_contents)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _send(self, request: AWSPreparedRequest, **parameters: Any) -> Any:
        streams, request.stream_output = request.stream_output, True  # the body is read below
        response = self._session.send(request)
        what = f"{request.method} request"
        try:
            refused = response.status_code >= 300
            headers: Any = response.headers
            self.clock.note(headers.get("Date"))
            self._note_region(headers.get("x-amz-bucket-region", ""))
            if streams and not refused:  # get_object: the caller reads as much as it wants
                check_head(response.status_code, headers, what)
                return response
            if request.method == "HEAD":
                check_head(response.status_code, headers, what, has_body=False)
                body: bytes | None = b""
            else:
                body = _read(response.raw, MAX_ERROR_SIZE if refused else MAX_PAGE_SIZE)
                if refused and (named := _REGION_ELEMENT.search(body or b"")):
                    self._note_region(named[1].decode())
                check_head(response.status_code, headers, what)
            if body is None and not refused:
                raise too_long(what, MAX_PAGE_SIZE)
        except urllib3.exceptions.HTTPError as error:
            response.raw.close()
            raise unreachable(what, error) from None
        except BaseException:
            response.raw.close()
            raise
        if body is None:
            response.raw.close()
        else:
            response.raw.release_conn()
        return AWSResponse(response.url, response.status_code, headers, _Body(body or b""))

    def _note_region(self, region: str) -> None:
        if _REGION.fullmatch(region):
            self.region = region


def _stay_at_the_endpoint(params: Mapping[str, Any], **parameters: Any) -> None:
    """Keep botocore from sending a request again to the endpoint of another region."""
    redirection = params["context"].get("s3_redirect")
    if redirection is not None:
        redirection["redirected"] = True


def _read(raw: Any, max_size: int) -> bytes | None:
    """Return the whole body of a response of urllib3, or None as soon as it has more than `max_size` bytes."""
    body = bytearray()
    for chunk in raw.stream(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > max_size:
            return None
    return bytes(body)
