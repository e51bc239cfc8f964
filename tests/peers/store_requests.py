"""The S3 operation of an HTTP request, from its method, URL and headers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

# What a key holds (docs/format.md, "Keys"); the first match counts.
_KINDS = {
    "object": re.compile(r"(^|/)folders/[^/]+/objects/"),
    "segment": re.compile(r"(^|/)folders/[^/]+/log/"),
    "checkpoint": re.compile(r"(^|/)folders/[^/]+/checkpoints/"),
    "loss": re.compile(r"(^|/)folders/[^/]+/losses/"),
    "folder record": re.compile(r"(^|/)folders/[^/]+/folder\.json$"),
    "folders": re.compile(r"(^|/)folders/$"),
    "peer record": re.compile(r"(^|/)peers/"),
    "heartbeat": re.compile(r"(^|/)nodes/"),
    "usage record": re.compile(r"(^|/)usage/"),
    "store record": re.compile(r"(^|/)store\.json$"),
    "probe": re.compile(r"(^|/)probe/"),
}
_PLAIN = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A request: S3's name of the operation, the key (of a listing, its prefix), and what such keys hold."""

    operation: str
    key: str
    kind: str

    @property
    def request_class(self) -> str:
        """Operation and kind together."""
        return f"{self.operation} {self.kind}"

    @property
    def writes(self) -> bool:
        """Whether the request changes the store."""
        return not self.operation.startswith(("Get", "Head", "List"))


def read_request(method: str, target: str, headers: Mapping[str, str]) -> StoreRequest:
    """Return the request for a path-style URL. The names of `headers` are in lower case."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).lstrip("/").partition("/")[2]
    if not key:
        key = query.get("prefix", [""])[0]
        operation = _bucket_operation(method, query.keys())
    else:
        operation = _object_operation(method, query.keys(), headers)
    kind = next((kind for kind, pattern in _KINDS.items() if pattern.search(key)), "bucket")
    return StoreRequest(operation, key, kind)


def _bucket_operation(method: str, query: Collection[str]) -> str:
    if method == "GET":
        return "ListMultipartUploads" if "uploads" in query else "ListObjects" if "list-type" in query else "GetBucket"
    return {"HEAD": "HeadBucket", "PUT": "CreateBucket", "POST": "DeleteObjects"}.get(method, f"{method} bucket")


def _object_operation(method: str, query: Collection[str], headers: Mapping[str, str]) -> str:
    if "uploads" in query:
        return "CreateMultipartUpload"
    if "uploadId" in query:
        if method == "PUT" and "x-amz-copy-source" in headers:
            return "UploadPartCopy"
        names = {
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }
        return names[method]
    if method == "PUT" and "x-amz-copy-source" in headers:
        return "CopyObject"
    return _PLAIN[method]
