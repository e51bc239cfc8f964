"""Readers of what an S3 server answers.

An input is a byte that says to what it answers, and an answer: the status, lines of headers, an empty line and the
body. The body is parsed as boto3 does it, without its HTTP.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import botocore.session
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.utils import lowercase_dict
from multidict import CIMultiDict

from tests.fuzz.mutations import Mutator
from tests.fuzz.targets import short
from untrusted_s3.errors import StoreError
from untrusted_s3.store import pages
from untrusted_s3.store.answers import check_head, error_code
from untrusted_s3.store.control_plane import complete_answer, required
from untrusted_s3.store.s3_errors import check_clock, refusal, translate

_OPERATIONS: Final = (
    "ListObjectsV2",
    "ListObjectsV2",
    "ListMultipartUploads",
    "ListParts",
    "HeadObject",
    "CreateMultipartUpload",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "HeadBucket",
    "GetBucketLifecycleConfiguration",
)
_NAMES: Final = (
    "list_objects_v2",
    "list_directories",
    "list_multipart_uploads",
    "list_parts",
    "head_object",
    "create_multipart_upload",
    "upload_part_copy",
    "complete_multipart_upload",
    "head_bucket",
    "get_bucket_lifecycle_configuration",
)
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


@functools.cache
def _model() -> Any:
    return botocore.session.get_session().get_service_model("s3")


@functools.cache
def _shape(operation: str) -> Any:
    return _model().operation_model(operation).output_shape


_PARSER: Final = create_parser("rest-xml")


def answers(data: bytes) -> str:
    """Read an answer to an operation. What is taken has only values of their types and ranges."""
    kind = data[0] % (len(_OPERATIONS) + 1) if data else 0
    head, _, body = data[1:].partition(b"\n\n")
    lines = head.decode("latin-1").split("\n")
    status = int(lines[0]) % 1000 if lines[0].isascii() and lines[0].isdigit() and len(lines[0]) < 9 else 200
    headers = dict(line.partition(":")[::2] for line in lines[1:])
    try:
        if kind == len(_OPERATIONS):
            return _data_plane(status, headers, body)
        return f"{_NAMES[kind]} {_control_plane(kind, status, headers, body)}"
    except StoreError as error:
        reason = short(error).partition("read: ")[2].partition(" ")[0]
        return f"{kind} {type(error).__name__} {reason}"


_ELEMENT: Final = re.compile(rb"<([A-Za-z]+)>(.*?)</\1>", re.DOTALL)


def damage_answer(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change, double or remove elements of the body or put others in their place; every fourth time, bytes anywhere."""
    found = _ELEMENT.search(data, mutator.below(len(data)))
    if found is None or mutator.below(4) == 0:
        return mutator.damaged(data, others)
    start, end = found.span(2)
    match mutator.below(6):
        case 0:
            return data[: found.start()] + data[found.end() :]
        case 1:
            return data[: found.end()] + data[found.start() :]
        case 2 if others:
            other = others[mutator.below(len(others))]
            element = _ELEMENT.search(other, mutator.below(len(other)))
            return data[: found.start()] + (element[0] if element else b"") + data[found.end() :]
        case 3:
            return data[:start] + mutator.token() + data[end:]
        case _:
            return data[:start] + mutator.damaged(found[2]) + data[end:]


def _control_plane(kind: int, status: int, headers: dict[str, str], body: bytes) -> str:
    operation, name = _OPERATIONS[kind], _NAMES[kind]
    check_head(status, headers, name, has_body=not name.startswith("head"))
    try:
        response = {"body": body, "headers": lowercase_dict(headers), "status_code": status}
        answer = _PARSER.parse(response, _shape(operation))
        if status >= 300:
            raise ClientError(answer, operation)
    except Exception as error:  # as the control plane does
        raise translate(error, name) from None
    complete_answer(answer, name, name)
    return _READERS[kind](answer)


def _objects(answer: Mapping[str, Any]) -> str:
    page = pages.read_objects(answer, "p/f", "p/")
    for item in page.items:
        assert item.key.startswith("f") and 0 <= item.size < 2**63 and isinstance(item.age, float)
    return _page(page)


def _directories(answer: Mapping[str, Any]) -> str:
    page = pages.read_directories(answer, "p/f", "p/")
    assert all(item.startswith("f") for item in page.items)
    return _page(page)


def _uploads(answer: Mapping[str, Any]) -> str:
    page = pages.read_uploads(answer, "p/f", "p/")
    assert all(item.key.startswith("f") and item.upload_id and isinstance(item.age, float) for item in page.items)
    return _page(page)


def _parts(answer: Mapping[str, Any]) -> str:
    page = pages.read_parts(answer)
    assert all(1 <= item.number <= 10_000 and 0 <= item.size < 2**63 and item.etag for item in page.items)
    return _page(page)


def _page(page: pages.Page[Any]) -> str:
    return f"taken {min(len(page.items), 4)} {bool(page.following)}"


def _size(answer: Mapping[str, Any]) -> str:
    assert 0 <= pages.read_size(answer) < 2**63
    return "taken"


def _upload_id(answer: Mapping[str, Any]) -> str:
    assert required(answer, "UploadId", "")
    return "taken"


def _copy(answer: Mapping[str, Any]) -> str:
    assert required(answer.get("CopyPartResult", {}), "ETag", "")
    return "taken"


def _clock(answer: Mapping[str, Any]) -> str:
    check_clock(answer["ResponseMetadata"]["HTTPHeaders"].get("date"), _NOW)
    return "taken"


def _nothing(answer: Mapping[str, Any]) -> str:
    return "taken"


_READERS: Final = (
    *(_objects, _directories, _uploads, _parts, _size, _upload_id, _copy, _nothing, _clock),
    _nothing,
)


def _data_plane(status: int, headers: dict[str, str], body: bytes) -> str:
    folded = CIMultiDict(headers)
    check_head(status, folded, "GET")
    if status >= 300:
        raise refusal(status, error_code(body), "GET")
    pages.check_range(status, folded, 5, "GET")
    return f"taken {status}"


_DATE: Final = "Thu, 01 Jan 2026 00:00:00 GMT"
_TIME: Final = "2026-01-01T00:00:00.000Z"
_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>'
_NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@functools.cache
def answer_seeds() -> list[bytes]:
    """Return sound answers to each operation, and refusals."""
    item = f"<Key>p/folder/log/00000000000000000001</Key><LastModified>{_TIME}</LastModified><Size>7</Size>"
    listed = f"<Contents>{item}<ETag>&quot;e&quot;</ETag></Contents>"
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>token</NextContinuationToken>"
    upload = f"<Upload><Key>p/f/o</Key><UploadId>u1</UploadId><Initiated>{_TIME}</Initiated></Upload>"
    part = f"<Part><PartNumber>1</PartNumber><LastModified>{_TIME}</LastModified><ETag>e</ETag><Size>5</Size></Part>"
    sound: list[tuple[int, int, str, str]] = [
        (0, 200, "", f"{_XML}<ListBucketResult {_NAMESPACE}>{more}{listed * 2}</ListBucketResult>"),
        (0, 200, "", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
        (0, 200, "", f"<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"),
        (
            1,
            200,
            "",
            f"<ListBucketResult>{more}<CommonPrefixes><Prefix>p/folder/</Prefix></CommonPrefixes></ListBucketResult>",
        ),
        (
            2,
            200,
            "",
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>"
            f"<NextUploadIdMarker>u</NextUploadIdMarker>{upload}</ListMultipartUploadsResult>",
        ),
        (
            3,
            200,
            "",
            "<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"
            f"{part * 2}</ListPartsResult>",
        ),
        (4, 200, f"Content-Length:100\nLast-Modified:{_DATE}\nETag:e\nx-amz-meta-a:b", ""),
        (5, 200, "", "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"),
        (6, 200, "", f"<CopyPartResult><ETag>e</ETag><LastModified>{_TIME}</LastModified></CopyPartResult>"),
        (7, 200, "", "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"),
        (7, 200, "", "<Error><Code>InternalError</Code><Message>m</Message></Error>"),
        (8, 200, "x-amz-bucket-region:eu-west-1", ""),
        (
            9,
            200,
            "",
            "<LifecycleConfiguration><Rule><ID>i</ID><Status>Enabled</Status><Filter><Prefix>p</Prefix></Filter>"
            "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
            "</AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
        ),
        (10, 206, "Content-Range:bytes 5-9/100\nContent-Length:5", "12345"),
        (10, 200, "Content-Encoding:gzip", "12345"),
        (10, 307, "Location:https://elsewhere.example/x?X-Amz-Signature=1", ""),
        *((kind, status, "", _error(code)) for kind in (0, 4, 10) for status, code in _REFUSALS),
    ]
    return [
        bytes([kind]) + f"{status}\nDate:{_DATE}{chr(10) if headers else ''}{headers}\n\n{body}".encode()
        for kind, status, headers, body in sound
    ]


def _error(code: str) -> str:
    return f"{_XML}<Error><Code>{code}</Code><Message>message</Message><Region>eu-west-1</Region></Error>"


_REFUSALS: Final = (
    *((403, code) for code in ("AccessDenied", "ExpiredToken", "RequestTimeTooSkewed", "InvalidObjectState")),
    *((404, code) for code in ("NoSuchKey", "NoSuchBucket", "NoSuchUpload")),
    *((409, code) for code in ("ConditionalRequestConflict", "BucketAlreadyExists")),
    *((412, "PreconditionFailed"), (503, "SlowDown"), (500, "InternalError"), (507, "InsufficientStorage")),
)

ANSWER_TOKENS: Final = (
    *(f"<{name}>".encode() for name in ("Contents", "Key", "Size", "LastModified", "Prefix", "CommonPrefixes", "Part")),
    *(f"</{name}>".encode() for name in ("Contents", "Key", "Size", "LastModified", "Prefix", "ETag", "Upload")),
    *(
        b"<IsTruncated>true</IsTruncated>",
        b"<Size>-1</Size>",
        b"<Size/>",
        b"<Key></Key>",
        b"<PartNumber>0</PartNumber>",
    ),
    *(
        b"<EncodingType>url</EncodingType>",
        b"%2e%2e%2f",
        b"%zz",
        b"&#0;",
        b"&#55296;",
        b"&lt;",
        b"&x;",
        b"<![CDATA[]]>",
    ),
    *(b'<!DOCTYPE a [<!ENTITY x "y">]>', b"<!--", b"-->", b"<?x ?>", b"\xef\xbb\xbf", b"xmlns:a='b'", b"<html>"),
    *(b"9999-99-99T99:99:99Z", b"0001-01-01T00:00:00Z", b"99999999999999999999", b"1e5", b"NaN", b"-1", b"+1", b"1_0"),
    *(b"\nDate:", b"\nContent-Length:", b"\nContent-Range:bytes ", b"\nLocation:http://[", b"\nContent-Encoding:"),
    *("٣".encode(), b"Thu, 32 Jan 2026 99:00:00 +9999", b"Thu, 01 Jan 99999 00:00:00 GMT", b"-0000", b"\nETag:"),
)
