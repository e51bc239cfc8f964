"""S3 operations by boto3: one request each, and no answer that is cut short passes for one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import AccessDenied, NoSuchKey, StoreBusy, StoreError, StoreRefused, StoreUnreachable
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.control_plane import ControlPlane, required

LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


async def ask(answer: Answer | None, operation: str = "list_objects_v2", **parameters: Any) -> tuple[int, Any]:
    """Send one operation; return how many requests arrived, and the answer or the error."""
    requests: list[Request] = []

    def reply(request: Request) -> Answer | None:
        requests.append(request)
        return answer

    counts: Counter[str] = Counter()
    with http_server(reply) as url:
        client = connect(url, S3Credentials("a", "s")).client
        try:
            outcome: Any = await ControlPlane(client, "bucket", counts).call(operation, **parameters)
        except StoreError as error:
            outcome = error
        finally:
            client.close()
    assert counts == {operation: 1}
    return len(requests), outcome


async def test_an_answer() -> None:
    requests, answer = await ask(Answer(200, LISTING), Prefix="p/")
    assert requests == 1 and answer["IsTruncated"] is False


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, StoreUnreachable),
        (Answer(500), StoreUnreachable),
        (Answer(503, b"<Error><Code>SlowDown</Code></Error>"), StoreBusy),
        (Answer(200, b"<ListBucketResult/>"), StoreUnreachable),  # cut short
        (Answer(403, b"<Error><Code>AccessDenied</Code></Error>"), AccessDenied),
        (Answer(404, b"<Error><Code>NoSuchKey</Code></Error>"), NoSuchKey),
    ],
)
async def test_failures_are_ours_and_nothing_is_sent_twice(answer: Answer | None, kind: type[StoreError]) -> None:
    requests, error = await ask(answer)
    assert requests == 1 and type(error) is kind


async def test_the_key_is_named() -> None:
    _, error = await ask(Answer(501), "head_object", Key="some/key")
    assert "head_object some/key" in str(error)


def test_a_field_that_is_missing() -> None:
    assert required({"ETag": "tag"}, "ETag", "put k") == "tag"
    with pytest.raises(StoreRefused, match="put k lacks its ETag"):
        required({}, "ETag", "put k")
