"""HTTP on presigned URLs: one request each, bodies in pieces, errors by their codes."""

from __future__ import annotations

from collections import Counter

import pytest
from yarl import URL

from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import (
    CredentialsRefused,
    PreconditionFailed,
    StoreBusy,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.data_plane import DataPlane


async def test_a_body_in_pieces_and_the_answer() -> None:
    requests: list[Request] = []

    def reply(request: Request) -> Answer:
        requests.append(request)
        return Answer(200, b"body", {"ETag": "tag"})

    counts: Counter[str] = Counter()
    with http_server(reply) as url:
        plane = DataPlane(StoreSettings(), counts)
        try:
            answer = await plane.send("PUT", URL(url), "PUT k", [b"one", memoryview(b"two"), b""])
            assert (answer.headers["ETag"], answer.body) == ("tag", b"body")
            assert (await plane.get(URL(url), "GET k", {"Range": "bytes=0-3"}, 4)).body == b"body"
        finally:
            await plane.close()
    put, get = requests
    assert (put.body, put.headers["Content-Length"]) == (b"onetwo", "6")
    assert get.headers["Range"] == "bytes=0-3"
    # Ceph refuses presigned requests with headers that are not signed.
    assert not {"content-type", "accept", "accept-encoding"} & {name.lower() for name in (*put.headers, *get.headers)}
    assert counts == {"PUT": 1, "GET": 1}


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (None, StoreUnreachable, "GET k"),
        (Answer(503, b"<Error><Code>SlowDown</Code></Error>"), StoreBusy, "SlowDown"),
        (Answer(403, b"<Error><Code>ExpiredToken</Code></Error>"), CredentialsRefused, "ExpiredToken"),
        (Answer(412), PreconditionFailed, "GET k"),
        (Answer(400, b"x" * (65 << 10) + b"<Code>Late</Code>"), StoreRefused, "400"),
    ],
)
async def test_failures(answer: Answer | None, kind: type[StoreError], message: str) -> None:
    with http_server(lambda request: answer) as url:
        plane = DataPlane(StoreSettings(), Counter())
        try:
            with pytest.raises(kind, match=message) as caught:
                await plane.get(URL(url), "GET k", {}, 10)
        finally:
            await plane.close()
    assert type(caught.value) is kind and "Late" not in str(caught.value)
