"""Presigned URLs are those of botocore, byte for byte."""

from __future__ import annotations

import datetime
import string
from collections.abc import Mapping
from dataclasses import dataclass
from unittest import mock

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.presign import Presigner
from untrusted_s3.store.query_signing import QuerySigner

_BASES = (
    "http://127.0.0.1:8333/bucket/",
    "http://store.example:80/bucket/",
    "https://store.example:443/bucket/",
    "https://store.example:80/a.bucket/",
    "https://Store.Example/bucket/",
    "https://[fd00::1]:9000/bucket/",
    "https://[fd00::1]/bucket/",
    "https://bucket.s3.eu-central-1.amazonaws.com/",
    "https://store.example/below/a-path/bucket/",
)
_REGIONS = ("us-east-1", "eu-central-1", "auto", "a region/with ünusual characters")
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_KEYS = st.text(string.ascii_letters + string.digits + "-._~/", min_size=1, max_size=80)
_NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8).map("X-Amz-Meta-".__add__)
_HEADER_NAMES = st.sampled_from(("If-None-Match", "Content-MD5", "Content-Type", "x-amz-acl")) | _NAMES
_HEADERS = st.dictionaries(_HEADER_NAMES, st.text(string.printable, max_size=20), max_size=4)
_METHODS = st.sampled_from(("GET", "PUT", "POST", "DELETE", "HEAD"))
_DAY = 86_400
# A few, so that the same ones return, before and after a change.
_SECONDS = st.sampled_from((1_000_000, _DAY * 20_000 - 1, _DAY * 20_000, _DAY * 20_001 + 0.999, 4_000_000_000))


@dataclass(frozen=True)
class Request:
    """A request to be signed at a time, in seconds since 1970, with credentials."""

    seconds: float
    credentials: ReadOnlyCredentials
    method: str
    key: str
    lifetime: int
    query: Mapping[str, str]
    headers: Mapping[str, str]


_CREDENTIALS = st.builds(ReadOnlyCredentials, _TEXT, _TEXT, st.none() | _TEXT)
_REQUESTS = st.builds(
    Request,
    _SECONDS,
    st.sampled_from((ReadOnlyCredentials("a", "s", None), ReadOnlyCredentials("a", "s", "t"))) | _CREDENTIALS,
    _METHODS,
    _KEYS,
    st.integers(1, 604_800),
    st.dictionaries(_TEXT, _TEXT, max_size=3),
    _HEADERS.filter(lambda headers: len({name.lower() for name in headers}) == len(headers)),
)


class ChangingCredentials(Credentials):
    """Credentials that are replaced."""

    def __init__(self) -> None:
        super().__init__("", "")

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return self.current

    current = ReadOnlyCredentials("", "", None)


def by_botocore(base: str, region: str, request: Request) -> str:
    """Return the URL that botocore makes."""
    at = datetime.datetime.fromtimestamp(request.seconds, datetime.UTC)
    aws = AWSRequest(request.method, base + request.key, params=dict(request.query), headers=dict(request.headers))
    with mock.patch("botocore.auth.get_current_datetime", return_value=at):
        S3SigV4QueryAuth(request.credentials, "s3", region, request.lifetime).add_auth(aws)
    return str(aws.url)


@settings(max_examples=50)
@given(st.sampled_from(_BASES), st.sampled_from(_REGIONS), st.lists(_REQUESTS, min_size=1, max_size=4))
def test_urls_are_those_of_botocore(base: str, region: str, requests: list[Request]) -> None:
    credentials, now = ChangingCredentials(), 0.0
    signer = QuerySigner(credentials, region, base, lambda: now)
    for one in requests:
        now, credentials.current = one.seconds, one.credentials
        signed = signer.sign(one.method, one.key, one.lifetime, one.query, one.headers)
        assert f"{base}{one.key}?{signed}" == by_botocore(base, region, one)


@pytest.mark.parametrize("region", [None, "us-east-1", "eu-central-1"])
@pytest.mark.parametrize(
    "endpoint",
    [
        None,
        "http://127.0.0.1:9",
        "https://store.example",
        "https://store.example:443",
        "http://store.example:443/below/",
        "https://[fd00::1]:9000",
    ],
)
@pytest.mark.parametrize("bucket", ["bucket", "a.bucket"])
def test_the_url_of_an_object_is_that_of_boto3(
    bucket: str, endpoint: str | None, region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(endpoint, S3Credentials("a", "s"), region=region)
    url = Presigner(connection, bucket).put("prefix/key._-", 17)
    now = datetime.datetime.strptime(url.query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    parameters = {"Bucket": bucket, "Key": "prefix/key._-"}
    expected = connection.client.generate_presigned_url("put_object", Params=parameters, ExpiresIn=17)
    assert str(url) == str(URL(expected, encoded=True))  # which leaves out a usual port
    connection.close()
