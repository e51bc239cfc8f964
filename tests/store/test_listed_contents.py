"""The quick reader of listings says what botocore says, and leaves to botocore what is not ordinary."""

from __future__ import annotations

from typing import Any

import botocore.parsers
import botocore.session
import pytest

from untrusted_s3.store.listed_contents import take_contents

_MODEL = botocore.session.get_session().get_service_model("s3").operation_model("ListObjectsV2")
ITEM = "<Contents><Key>a/b%20c</Key><Size>12</Size><LastModified>2026-11-28T09:38:01.000Z</LastModified></Contents>"
REST = "<Name>bucket</Name><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b</NextContinuationToken>"
DIRECTORY = "<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes>"
SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ORDINARY = {
    "one": ITEM,
    "several": ITEM.replace("12", "0") + DIRECTORY + ITEM,
    "other fields": ITEM.replace("</Size>", "</Size><ETag>&quot;1&quot;</ETag><Owner><ID>7</ID></Owner>"),
    "a time of a zone": ITEM.replace(".000Z", "+02:00"),
    "an entity": ITEM.replace("a/b", "a&lt;b&#x2f;"),
}
UNUSUAL = {
    "no object": DIRECTORY,
    "no time": ITEM.replace("LastModified", "Modified"),
    "another time": ITEM.replace("2026-11-28T09:38:01.000Z", "Sat, 28 Nov 2026 09:38:01 GMT"),
    "a time of no zone": ITEM.replace("Z<", "<"),
    "no size": ITEM.replace("Size", "size"),
    "no number": ITEM.replace("12", "twelve"),
    "no key": ITEM.replace("a/b%20c", ""),
    "only one of them": ITEM + ITEM.replace("<Size>12</Size>", ""),
}


def answer(content: str, space: str = SPACE, status: int = 200) -> dict[str, Any]:
    body = f'<?xml version="1.0"?><ListBucketResult{space}>{REST}{content}</ListBucketResult>'
    return {"body": body.encode(), "headers": {}, "status_code": status}


def by_botocore(response: dict[str, Any]) -> dict[str, Any]:
    assert _MODEL.output_shape is not None
    parsed = botocore.parsers.create_parser("rest-xml").parse(response, _MODEL.output_shape)
    return dict(parsed)


@pytest.mark.parametrize("space", [SPACE, ""])
@pytest.mark.parametrize("content", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_listings(content: str, space: str) -> None:
    taken: dict[str, Any] = {}
    response = answer(content, space)
    take_contents(response, taken)
    expected = by_botocore(answer(content, space))
    for item in expected["Contents"]:
        for field in ("ETag", "Owner"):
            item.pop(field, None)
    assert taken["Contents"] == expected.pop("Contents")
    assert by_botocore(response) == expected


@pytest.mark.parametrize("content", UNUSUAL.values(), ids=UNUSUAL)
def test_others_are_left_alone(content: str) -> None:
    taken: dict[str, Any] = {}
    response = answer(content)
    take_contents(response, taken)
    assert (response, taken) == (answer(content), {})


@pytest.mark.parametrize("body", [b"", b"<ListBucketResult", b"<Error><Code>Busy</Code></Error>", b"\xff"])
def test_what_is_no_listing(body: bytes) -> None:
    taken: dict[str, Any] = {}
    response = {"body": body, "headers": {}, "status_code": 200}
    take_contents(response, taken)
    assert (response["body"], taken) == (body, {})


def test_an_error_is_left_alone() -> None:
    taken: dict[str, Any] = {}
    response = answer(ITEM, status=503)
    take_contents(response, taken)
    assert (response, taken) == (answer(ITEM, status=503), {})
