"""Credentials that the store refuses are fetched again, and the request with them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials

from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import CredentialsRefused
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.connection import connect
from untrusted_s3.store.credentials import RenewableCredentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

CALLS: dict[str, Callable[[S3Bucket], Awaitable[Any]]] = {
    "put": lambda bucket: bucket.put("key", [b"body"], if_none_match=True),
    "get": lambda bucket: bucket.get("key"),
    "list": lambda bucket: bucket.call("list_objects_v2"),
    "upload_part": lambda bucket: bucket.upload_part("key", "upload", 1, [b"body"]),
}


class Provider:
    """Gives credentials one after the other, and counts how often it is asked."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.asked = 0

    def __call__(self) -> Credentials:
        self.asked += 1
        return Credentials(self.keys.pop(0) if len(self.keys) > 1 else self.keys[0], "secret")


def test_fresh_credentials_take_over() -> None:
    provider = Provider("second")
    credentials = RenewableCredentials(Credentials("first", "secret"), provider)
    assert credentials.renew(0)
    assert (credentials.get_frozen_credentials().access_key, credentials.generation) == ("second", 1)


def test_who_was_refused_with_old_credentials_takes_the_new_ones_without_asking_again() -> None:
    provider = Provider("second", "third")
    credentials = RenewableCredentials(Credentials("first", "secret"), provider)
    assert [credentials.renew(0) for _ in range(3)] == [True] * 3
    assert provider.asked == 1


def test_the_provider_is_asked_once_in_a_while() -> None:
    now = 0.0
    provider = Provider("first")
    credentials = RenewableCredentials(Credentials("first", "secret"), provider, interval=5.0, clock=lambda: now)
    for now in (0.0, 1.0, 4.9, 5.0, 9.0, 10.0):  # noqa: B007 (the clock shows it)
        assert not credentials.renew(0)
    assert provider.asked == 3


def test_a_provider_that_fails_changes_nothing() -> None:
    def fail() -> Credentials:
        raise OSError("the file is gone")

    credentials = RenewableCredentials(Credentials("first", "secret"), fail)
    assert not credentials.renew(0)
    assert credentials.get_frozen_credentials().access_key == "first"


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
async def test_revoked_credentials_are_replaced_by_those_that_the_environment_has_now(
    code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    valid, seen = "FIRST", []

    def reply(request: Request) -> Answer:
        seen.append(request.method)
        if f"{valid}/" not in request.headers.get("Authorization", "") + request.path.replace("%2F", "/"):
            return Answer(403, f"<Error><Code>{code}</Code></Error>".encode())
        return Answer(200, LISTING if "list-type" in request.path else b"body", {"ETag": "tag"})

    def write(key: str) -> None:
        file = tmp_path / "credentials"
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write("FIRST")
    settings = StoreSettings(tries=1)
    with http_server(reply) as url:
        for first in CALLS:
            valid = "FIRST"
            write("FIRST")
            bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, settings=settings), settings)
            try:
                for call in CALLS.values():
                    await call(bucket)
                valid = "SECOND"
                write("SECOND")
                await CALLS[first](bucket)
                for call in CALLS.values():
                    await call(bucket)
            finally:
                await bucket.close()


async def test_credentials_that_stay_wrong_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with http_server(lambda request: Answer(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")) as url:
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url))
        with pytest.raises(CredentialsRefused):
            await bucket.put("key", [b"body"])
        await bucket.close()
