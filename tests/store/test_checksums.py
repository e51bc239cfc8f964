"""A store that wants a checksum with each write, as Amazon S3 does where objects are locked by default."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import ChecksumWanted, ConditionalWritesUnsupported, PreconditionFailed
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

REFUSAL = Answer(400, b"<Error><Code>InvalidRequest</Code></Error>")


class Strict:
    """Takes writes with the right checksum that is signed, and no others."""

    def __init__(self) -> None:
        self.refused = 0
        self.taken: list[Request] = []

    def __call__(self, request: Request) -> Answer:
        md5 = request.headers.get("Content-MD5")
        if md5 is None:
            self.refused += 1
            return REFUSAL
        assert md5 == base64.b64encode(hashlib.md5(request.body).digest()).decode()
        assert "content-md5" in request.path, "the signature is over it"
        self.taken.append(request)
        if "taken" in request.path:
            return Answer(412)
        return Answer(200, headers={"ETag": '"etag"'})


def opened(url: str) -> S3Bucket:
    return S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("access", "secret")))


async def test_after_one_refusal_every_write_has_one(tmp_path: Path) -> None:
    store = Strict()
    with http_server(store) as url:
        bucket = opened(url)
        await bucket.put("one", [b"first ", memoryview(b"piece")])
        assert (store.refused, [request.body for request in store.taken]) == (1, [b"first piece"])
        await bucket.put("two", [b"data"], if_none_match=True, lifetime=900)
        assert store.taken[-1].headers["If-None-Match"] == "*"
        with pytest.raises(PreconditionFailed):
            await bucket.put("taken", [b"data"], if_none_match=True)
        assert await bucket.upload_part("three", "id", 1, [b"part"]) == '"etag"'
        (tmp_path / "file").write_bytes(b"local")
        await bucket.upload_file("four", tmp_path / "file")
        await bucket.put_late("five", [b"late"], 900, 0)
        assert store.refused == 1 and len(store.taken) == 6
        await bucket.close()


async def test_a_refusal_of_a_part_is_enough() -> None:
    store = Strict()
    with http_server(store) as url:
        bucket = opened(url)
        for number in (1, 2):
            assert await bucket.upload_part("key", "id", number, [b"part"])
        assert store.refused == 1 and len(store.taken) == 2
        await bucket.close()


async def test_another_refusal_stays_one() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return REFUSAL

    with http_server(answer) as url:
        bucket = opened(url)
        for _ in range(2):
            with pytest.raises(ChecksumWanted, match="400 InvalidRequest"):
                await bucket.put("key", [b"data"])
        assert ["Content-MD5" in request.headers for request in requests] == [False, True, False, True]
        await bucket.close()


async def test_without_a_refusal_there_is_none() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Answer:
        requests.append(request)
        return Answer(501 if "If-None-Match" in request.headers else 200)

    with http_server(answer) as url:
        bucket = opened(url)
        await bucket.put("key", [b"data"])
        with pytest.raises(ConditionalWritesUnsupported):
            await bucket.put("key", [b"data"], if_none_match=True)
        assert len(requests) == 2 and not any("Content-MD5" in request.headers for request in requests)
        await bucket.close()
