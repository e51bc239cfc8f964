"""Strict readers of what a store lists. boto3 gives each field its type, and says nothing of absent ones or of ranges.

Every reader takes an answer of boto3 and raises StoreUnreachable if that cannot be what the store means: a broken proxy
answers so as well, and another try may be answered better. A key that does not begin with what was asked for is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.store.bucket import STANDARD, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.s3_errors import age_at, parse_date

Item = TypeVar("Item")

MAX_SIZE: Final = 2**63 - 1
MAX_PART_NUMBER: Final = 10_000
MAX_TEXT_LENGTH: Final = 4096  # S3's keys have up to 1024 bytes; ids and ETags are not limited

_STORAGE_CLASS = re.compile(r"[A-Z0-9_-]{1,40}")
_PARTIAL_CONTENT: Final = 206
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of a listing.

    Attributes:
        items: What it lists.
        following: The parameters with which the next page is asked for; empty after the last one.
    """

    items: list[Item]
    following: Mapping[str, Any]


def read_objects(answer: Mapping[str, Any], asked: str, removed: str) -> Page[ObjectSummary]:
    """Read a page of a listing of the keys that begin with `asked`. `removed` is taken away from each key."""
    found = []
    now = parse_date(_date_of(answer))
    for item in answer.get("Contents", []):
        key, size = _text(item, "Key"), _number(item, "Size", 0, MAX_SIZE)
        if key.startswith(asked):
            age = age_at(now, item.get("LastModified"))
            found.append(ObjectSummary(key.removeprefix(removed), size, age, _storage_class(item)))
    return Page(found, _next_objects(answer))


def read_directories(answer: Mapping[str, Any], asked: str, removed: str) -> Page[str]:
    """Read a page of a listing of the prefixes one level below `asked`."""
    found = [_text(item, "Prefix") for item in answer.get("CommonPrefixes", [])]
    inside = [prefix.removeprefix(removed) for prefix in found if prefix.startswith(asked) and prefix != asked]
    return Page(inside, _next_objects(answer))


def read_level(answer: Mapping[str, Any], asked: str, removed: str) -> Page[str]:
    """Read a page of a listing of the keys and prefixes one level below `asked`."""
    objects, directories = read_objects(answer, asked, removed), read_directories(answer, asked, removed)
    return Page([*directories.items, *(item.key for item in objects.items)], directories.following)


def read_uploads(answer: Mapping[str, Any], asked: str, removed: str) -> Page[MultipartUpload]:
    """Read a page of a listing of unfinished uploads to keys that begin with `asked`."""
    found = []
    for item in answer.get("Uploads", []):
        key, upload_id = _text(item, "Key"), _text(item, "UploadId")
        if key.startswith(asked):
            age = _age(item.get("Initiated"), answer)
            found.append(MultipartUpload(key.removeprefix(removed), upload_id, age))
    if not answer.get("IsTruncated"):
        return Page(found, {})
    # SeaweedFS gives only the second, and needs only that.
    markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
    following = {name: _text(answer, source) for name, source in markers.items() if answer.get(source)}
    if not following:
        raise _wrong("NextUploadIdMarker")
    return Page(found, following)


def read_parts(answer: Mapping[str, Any]) -> Page[UploadedPart]:
    """Read a page of a listing of an upload's parts."""
    found = [
        UploadedPart(
            _number(part, "PartNumber", 1, MAX_PART_NUMBER),
            _number(part, "Size", 0, MAX_SIZE),
            _text(part, "ETag"),
            _age(part["LastModified"], answer) if "LastModified" in part else None,
        )
        for part in answer.get("Parts", [])
    ]
    if not answer.get("IsTruncated"):
        return Page(found, {})
    return Page(found, {"PartNumberMarker": _number(answer, "NextPartNumberMarker", 1, MAX_PART_NUMBER)})


def read_size(answer: Mapping[str, Any]) -> int:
    """Read the size of an object from the answer to a HEAD."""
    return _number(answer, "ContentLength", 0, MAX_SIZE)


def check_range(status: int, headers: Mapping[str, str], start: int, what: str) -> None:
    """Raise StoreUnreachable if an answer says that it begins elsewhere than at byte `start` of the object."""
    begins = 0
    if status == _PARTIAL_CONTENT:
        found = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        begins = int(found[1]) if found else start
    if begins != start:
        raise StoreUnreachable(f"the store's answer to {what} begins at byte {begins} instead of {start}")


def _next_objects(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"ContinuationToken": _text(answer, "NextContinuationToken")} if answer.get("IsTruncated") else {}


def _storage_class(item: Mapping[str, Any]) -> str:
    """Return the storage class of a listed object. It is for people, so a strange one is no error."""
    found = item.get("StorageClass")
    return found if isinstance(found, str) and _STORAGE_CLASS.fullmatch(found) else STANDARD


def _age(modified: datetime | None, answer: Mapping[str, Any]) -> float:
    return age_at(parse_date(_date_of(answer)), modified)


def _date_of(answer: Mapping[str, Any]) -> str | None:
    date: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return date


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_LENGTH:
        raise _wrong(name)
    return value


def _number(item: Mapping[str, Any], name: str, minimum: int, maximum: int) -> int:
    value = item.get(name)
    if not isinstance(value, int) or not minimum <= value <= maximum:
        raise _wrong(name)
    return value


def _wrong(name: str) -> StoreUnreachable:
    return StoreUnreachable(f"the store's answer cannot be read: {name} is missing or out of range")
