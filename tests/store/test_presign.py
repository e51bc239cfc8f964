"""Presigned URLs: signed once for all reads of an object, and signed again in time."""

from __future__ import annotations

import dataclasses

from botocore.credentials import Credentials, ReadOnlyCredentials

from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.presign import Presigner

SETTINGS = StoreSettings(get_lifetime=3600, put_lifetime=300, cached_urls=2)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class CountingCredentials(Credentials):
    """Credentials that count how often they are used to sign."""

    signed = 0

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.signed += 1
        return super().get_frozen_credentials()


def make_presigner() -> tuple[Presigner, Clock, CountingCredentials]:
    connection = connect("http://127.0.0.1:9", S3Credentials("a", "s"))
    clock, credentials = Clock(), CountingCredentials("a", "s")
    return (
        Presigner(dataclasses.replace(connection, credentials=credentials), "bucket", SETTINGS, clock),
        clock,
        credentials,
    )


def test_a_read_is_signed_once_while_its_url_is_young() -> None:
    presigner, clock, credentials = make_presigner()
    first = presigner.get("key")
    clock.now += SETTINGS.get_lifetime / 2 - 1
    assert presigner.get("key") is first
    assert credentials.signed == 1
    clock.now += 1
    presigner.get("key")
    assert credentials.signed == 2


def test_a_url_that_is_given_out_is_valid_for_half_its_life_at_least() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("key").query["X-Amz-Expires"] == str(SETTINGS.get_lifetime)


def test_a_forgotten_url_is_signed_again() -> None:
    presigner, _, credentials = make_presigner()
    presigner.get("key")
    presigner.forget("key")
    presigner.forget("never seen")
    presigner.get("key")
    assert credentials.signed == 2


def test_the_urls_kept_are_bounded_and_the_oldest_used_goes_first() -> None:
    presigner, _, credentials = make_presigner()
    for key in ("a", "b", "a", "c", "a"):
        presigner.get(key)
    assert credentials.signed == 3
    presigner.get("b")
    assert credentials.signed == 4


def test_each_write_has_its_own_lifetime() -> None:
    presigner, _, credentials = make_presigner()
    assert presigner.put("key", 300).query["X-Amz-Expires"] == "300"
    assert presigner.put("key", 5).query["X-Amz-Expires"] == "5"
    part = presigner.upload_part("key", "upload", 7)
    assert (part.query["partNumber"], part.query["uploadId"]) == ("7", "upload")
    assert part.query["X-Amz-Expires"] == str(SETTINGS.put_lifetime)
    assert credentials.signed == 3
    completion = presigner.complete("key", "upload", 7)
    assert (completion.query["X-Amz-Expires"], completion.query["uploadId"]) == ("7", "upload")
    assert "partNumber" not in completion.query


def test_only_the_host_is_signed_so_that_any_range_may_be_asked() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("key").query["X-Amz-SignedHeaders"] == "host"
    assert presigner.put("key", 5).query["X-Amz-SignedHeaders"] == "host"


def test_conditions_are_signed() -> None:
    presigner, _, _ = make_presigner()
    url = presigner.put("key", 5, {"If-None-Match": "*"})
    assert url.query["X-Amz-SignedHeaders"] == "host;if-none-match"


def test_the_url_keeps_what_was_signed() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("a/b._-c").path == "/bucket/a/b._-c"
