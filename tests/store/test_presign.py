"""Presigned URLs: signed once for all reads of an object, and in time anew."""

from __future__ import annotations

from yarl import URL

from untrusted_s3 import limits
from untrusted_s3.store import presign
from untrusted_s3.store.presign import Presigner
from untrusted_s3.store.s3 import S3Credentials, connect


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make_presigner() -> tuple[Presigner, Clock, list[str]]:
    presigner = Presigner(connect("http://127.0.0.1:9", S3Credentials("a", "s")), "bucket", clock := Clock())
    signed: list[str] = []
    sign = presigner._sign

    def count(method: str, key: str, lifetime: int, query: dict[str, str] | None = None) -> URL:
        signed.append(method)
        return sign(method, key, lifetime, query)

    presigner._sign = count  # type: ignore[method-assign]
    return presigner, clock, signed


def test_a_read_is_signed_once_while_its_url_is_young() -> None:
    presigner, clock, signed = make_presigner()
    first = presigner.get("key")
    clock.now += limits.PRESIGNED_GET_LIFETIME / 2 - 1
    assert presigner.get("key") is first
    assert len(signed) == 1
    clock.now += 1
    presigner.get("key")
    assert len(signed) == 2


def test_a_url_that_is_given_out_is_valid_for_half_its_life_at_least() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("key").query["X-Amz-Expires"] == str(limits.PRESIGNED_GET_LIFETIME)


def test_a_forgotten_url_is_signed_anew() -> None:
    presigner, _, signed = make_presigner()
    presigner.get("key")
    presigner.forget("key")
    presigner.forget("never seen")
    presigner.get("key")
    assert len(signed) == 2


def test_the_urls_kept_are_bounded_and_the_oldest_used_goes_first(monkeypatch: object) -> None:
    presigner, _, signed = make_presigner()
    presign_limit, presign._CACHED_URLS = presign._CACHED_URLS, 2
    try:
        for key in ("a", "b", "a", "c", "a"):
            presigner.get(key)
        assert len(signed) == 3
        presigner.get("b")
        assert len(signed) == 4
    finally:
        presign._CACHED_URLS = presign_limit


def test_each_write_has_its_own_lifetime() -> None:
    presigner, _, signed = make_presigner()
    assert presigner.put("key", 300).query["X-Amz-Expires"] == "300"
    assert presigner.put("key", 5).query["X-Amz-Expires"] == "5"
    part = presigner.upload_part("key", "upload", 7)
    assert (part.query["partNumber"], part.query["uploadId"]) == ("7", "upload")
    assert signed == ["PUT", "PUT", "PUT"]


def test_only_the_host_is_signed_so_that_any_range_may_be_asked() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("key").query["X-Amz-SignedHeaders"] == "host"
    assert presigner.put("key", 5).query["X-Amz-SignedHeaders"] == "host"


def test_the_url_keeps_what_was_signed() -> None:
    presigner, _, _ = make_presigner()
    assert presigner.get("a/b._-c").path == "/bucket/a/b._-c"
