"""What every answer of a store is held to: no redirect, no content encoding, no more bytes than were asked for.

Both planes use it. No message here contains a URL or a text of the store, but for error codes and host names that have
the usual form.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from untrusted_s3.errors import AnswerTooLong, StoreRedirects, StoreRefused, StoreUnreachable
from untrusted_s3.units import KIB, MIB

MAX_ERROR_SIZE: Final = 64 * KIB
MAX_PAGE_SIZE: Final = 8 * MIB  # a listing has at most 1000 keys of at most 1024 bytes, which XML can make 6 KiB

_ERROR_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
_CODE = re.compile(r"[A-Za-z0-9]{1,64}")
_ORIGIN = re.compile(r"https?://[0-9A-Za-z.:\[\]-]{1,255}")
_MAX_CHAIN = 10

# What happened, by the name of an error's class in aiohttp and botocore.
_PHRASES: Final[Mapping[str, str]] = {
    "TimeoutError": "it took too long",
    "ServerTimeoutError": "it took too long",
    "SocketTimeoutError": "it took too long",
    "ConnectionTimeoutError": "no connection in time",
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "it took too long",
    "EndpointConnectionError": "no connection",
    "ClientConnectorError": "no connection",
    "ClientConnectorDNSError": "its name is not known",
    "ServerDisconnectedError": "the connection was closed",
    "ConnectionClosedError": "the connection was closed",
    "ClientPayloadError": "the answer broke off",
    "ProtocolError": "the answer broke off",
    "ProxyConnectionError": "no connection",
    "ClientProxyConnectionError": "no connection",
    "ClientHttpProxyError": "it refuses",
    "ClientConnectorCertificateError": "its certificate is not trusted",
    "ClientConnectorSSLError": "TLS failed",
    "SSLError": "TLS failed",
}

_PROXY_ERRORS: Final = frozenset({"ProxyConnectionError", "ClientProxyConnectionError", "ClientHttpProxyError"})


def check_head(status: int, headers: Mapping[str, str], what: str, *, has_body: bool = True) -> None:
    """Raise StoreRedirects or StoreRefused if an answer redirects, or if its body is encoded."""
    if 300 <= status < 400 and status != 304:
        origin = _origin(headers.get("Location", ""))
        raise StoreRedirects(
            f"the store redirects {what}{f' to {origin}' if origin else ''} ({status}): the region or the endpoint is"
            " wrong"
        )
    encoding = headers.get("Content-Encoding", "")
    if has_body and status < 300 and encoding.strip().lower() not in ("", "identity"):
        raise StoreRefused(f"the store encodes its answer to {what}, which was not asked for")


def _origin(location: str) -> str:
    """Return scheme and host of a URL, or nothing if it has none of the usual form."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin if _ORIGIN.fullmatch(origin) else ""


def too_long(what: str, size: int) -> AnswerTooLong:
    """Return the error for an answer of more than `size` bytes."""
    return AnswerTooLong(f"the store's answer to {what} has more than {size} bytes")


def error_code(body: bytes) -> str:
    """Return the S3 error code in the body of an answer; empty if it has none of the usual form."""
    found = _ERROR_CODE.search(body[:MAX_ERROR_SIZE])
    return found[1].decode() if found else ""


def plain_code(code: object) -> str:
    """Return an error code that botocore found, or nothing if it has not the usual form."""
    text = str(code)
    return text if _CODE.fullmatch(text) else ""


def unreachable(what: str, error: BaseException) -> StoreUnreachable:
    """Return our error for one of an HTTP client. Its own text is left out: it may contain a signed URL."""
    failed = any(type(cause).__name__ in _PROXY_ERRORS for cause in _chain(error))
    where = "the proxy that HTTPS_PROXY or HTTP_PROXY names: " if failed else ""
    return StoreUnreachable(f"the store cannot be reached ({what}): {where}{_phrase(error)}")


def _phrase(error: BaseException) -> str:
    """Return what happened: by the system's error number or OpenSSL's verdict if there is one, else by its class."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            verdict = getattr(cause, "verify_message", "")
            return f"its certificate is not trusted{f' ({verdict})' if verdict else ''}"
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
            return os.strerror(cause.errno).lower()
    for kind in type(error).__mro__:
        if kind.__name__ in _PHRASES:
            return _PHRASES[kind.__name__]
    return type(error).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it was made of."""
    chain: list[BaseException] = []
    following: list[object] = [error]
    while following and len(chain) < _MAX_CHAIN:
        cause = following.pop(0)
        if isinstance(cause, BaseException) and cause not in chain:
            chain.append(cause)
            inner = [getattr(cause, "os_error", None), getattr(cause, "reason", None), getattr(cause, "kwargs", {})]
            wrapped = inner[2].get("error") if isinstance(inner[2], dict) else None
            following += [cause.__cause__, cause.__context__, inner[0], inner[1], wrapped, *cause.args]
    return chain
