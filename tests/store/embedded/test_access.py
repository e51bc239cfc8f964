"""What the embedded SeaweedFS does for those who have no credentials: nothing."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.store.embedded.store_client import client, get, put
from tests.waiting import PATIENCE
from untrusted_s3.store.embedded.ports import GRPC_OFFSET, SERVICES, listening_addresses
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.store

BODY = b"the content of an object" * 100
KEY = "folder/object"
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
ORIGINS = (None, "https://web.example", "http://127.0.0.1", "null")
# Requests that SeaweedFS's services take, from its documentation, and the ones that S3 clients send.
PATHS = (
    "/",
    "/{bucket}",
    "/{bucket}/",
    "/{bucket}/{key}",
    "/{bucket}/new",
    "/{bucket}?list-type=2",
    "/buckets/",
    "/buckets/{bucket}/{key}",
    "/buckets/{bucket}/new",
    "/buckets/{bucket}?recursive=true",
    "/dir/assign",
    "/dir/status",
    "/dir/lookup?volumeId=1",
    "/vol/grow?count=1",
    "/vol/vacuum",
    "/vol/status",
    "/col/delete?collection={bucket}",
    "/cluster/status",
    "/submit",
    "/1,01637037d6",
    "/2,ff00637037d6",
    "/1/01637037d6/name",
    "/status",
    "/stats/disk",
    "/stats/memory",
    "/ui/index.html",
    "/admin/assign_volume?volume=9",
    "/debug/pprof/",
    "/metrics",
    "/api/files/delete",
    "/.tus/new",
)
# Pages about the server's health. Of these, web pages can read only that of S3, which says whether it is up.
STATUS_PAGES = {("s3", "/status"), ("volume", "/status"), ("admin", "/metrics")}
STATUS_PAGES |= {("master", "/"), ("master", "/ui/index.html"), ("master", "/cluster/status")}


def ask(port: int, method: str, path: str, origin: str | None) -> tuple[int, bytes, Any] | None:
    """Return status, body and headers; None if what listens speaks no HTTP/1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    body = b"intruder" if method in ("PUT", "POST") else None
    try:
        connection.request(method, path, body, {"Origin": origin} if origin else {})
        answer = connection.getresponse()
        return answer.status, answer.read(100_000), answer.headers
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def contents(store: EmbeddedStore) -> dict[str, bytes]:
    listing = client(store).list_objects_v2(Bucket=store.bucket).get("Contents", [])
    return {item["Key"]: get(store, item["Key"]) for item in listing}


@contextlib.contextmanager
def unchanged(store: EmbeddedStore) -> Iterator[None]:
    before = contents(store)
    yield
    assert contents(store) == before


def test_no_port_reads_or_changes_anything_without_a_signature(
    tmp_path_factory: pytest.TempPathFactory, weed: object
) -> None:
    with EmbeddedStore.start(tmp_path_factory.mktemp("access")) as store:
        put(store, KEY, BODY)
        services = json.loads((store.directory / "endpoint.json").read_text())["ports"]
        names = {port: name for name, port in services.items()}
        grpc = {port + GRPC_OFFSET for port in names}
        listening = {port for _, port in listening_addresses(store.pid)}
        assert set(SERVICES) == set(services) and listening <= names.keys() | grpc
        known = {"bucket": store.bucket, "key": KEY}
        taken: set[tuple[str, str]] = set()
        readable_by_web_pages: set[tuple[str, str]] = set()
        with unchanged(store):
            for port in sorted(listening - grpc):
                for method, path, origin in itertools.product(METHODS, PATHS, ORIGINS):
                    answer = ask(port, method, path.format(**known), origin)
                    assert answer is not None, (names[port], method, path)
                    status, body, headers = answer
                    if status < 300:
                        assert BODY not in body and KEY.encode() not in body
                        if "Access-Control-Allow-Origin" in headers:
                            readable_by_web_pages.add((names[port], path))
                        taken.add((names[port], path))
            assert taken <= STATUS_PAGES and readable_by_web_pages <= {("s3", "/status")}
            for port in sorted(listening & grpc):
                assert [ask(port, method, "/", origin) for method in METHODS for origin in ORIGINS] == [None] * 20


def test_a_start_makes_new_internal_keys_that_only_the_owner_reads(
    tmp_path_factory: pytest.TempPathFactory, weed: object
) -> None:
    directory = tmp_path_factory.mktemp("keys")
    path = directory / "security.toml"
    texts = []
    for _ in range(2):
        with EmbeddedStore.start(directory) as store:
            assert KEY not in contents(store) or get(store, KEY) == BODY
            put(store, KEY, BODY)
            assert path.stat().st_mode & 0o777 == 0o600
            texts.append(path.read_text())
    assert texts[0] != texts[1]


def test_the_probe_of_readiness_leaves_nothing_behind(tmp_path_factory: pytest.TempPathFactory, weed: object) -> None:
    with EmbeddedStore.start(tmp_path_factory.mktemp("ready")) as store:
        assert contents(store) == {}
