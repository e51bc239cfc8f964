"""`serve`: which stores it trusts, and that it has its state folder for itself."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.cli.conftest import RunCLI
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.gateway.state_lock import lock_state


class MemoryStore:
    """An S3 store in memory. It ignores signatures, and so the end of presigned URLs."""

    def __init__(self, *, conditions: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.conditional = 0
        self._conditions = conditions
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        key = path.removeprefix("/bucket").removeprefix("/")
        with self._lock:
            if "If-None-Match" in request.headers:
                self.conditional += 1
                if not self._conditions:
                    return Answer(501, b"<Error><Code>NotImplemented</Code></Error>")
                if key in self.objects:
                    return Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            if request.method == "PUT":
                self.objects[key] = request.body
                return Answer(200, headers={"ETag": "tag"})
            if request.method == "DELETE":
                self.objects.pop(key, None)
                return Answer(204)
            if "list-type" in query:
                return Answer(200, self._listing(query))
            if key and key not in self.objects:
                return Answer(404, b"" if request.method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>")
            return Answer(200, self.objects.get(key, b""))

    def _listing(self, query: str) -> bytes:
        prefix = unquote((re.search(r"(?<=[?&]prefix=)[^&]*", "?" + query) or [""])[0])
        items = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(body)}</Size></Contents>"
            for key, body in self.objects.items()
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()


def serve(run_cli: RunCLI, url: str, *options: str) -> tuple[int, str]:
    arguments = ["--store", "s3://bucket", "--endpoint-url", url, "--http", "none", "--listen", "tcp://127.0.0.1:0"]
    outcome = run_cli("serve", *arguments, *options)
    return outcome.exit_code, outcome.stderr


@pytest.mark.usefixtures("credentials")
def test_a_store_that_ignores_the_end_of_urls_is_refused_before_anybody_connects(run_cli: RunCLI) -> None:
    with http_server(MemoryStore()) as url:
        exit_code, stderr = serve(run_cli, url)
    assert (exit_code, "after its end" in stderr) == (3, True)
    assert "listening" not in stderr and '"ready"' not in stderr


@pytest.mark.usefixtures("credentials")
def test_a_single_writer_needs_no_conditional_writes(run_cli: RunCLI) -> None:
    """Backblaze B2 answers 501 to them. `serve` and `doctor` agree."""
    store = MemoryStore(conditions=False)
    with http_server(store) as url:
        exit_code, stderr = serve(run_cli, url)
        assert (exit_code, "--single-writer" in stderr) == (3, True)
        assert store.conditional > 0
        store.conditional = 0
        exit_code, stderr = serve(run_cli, url, "--single-writer")
        assert (exit_code, "after its end" in stderr) == (3, True)  # it got as far as the store allows
        assert "store.json" in store.objects
        arguments = ["doctor", "--single-writer", "--json", "--store", "s3://bucket", "--endpoint-url", url]
        checks = {check["name"]: check for check in json.loads(run_cli(*arguments).stdout)["checks"]}
        assert {checks[name]["result"] for name in ("rights", "conditional writes", "conditional completion")} == {"ok"}
    assert store.conditional == 0


@pytest.mark.usefixtures("credentials")
def test_a_state_folder_in_use_is_refused(run_cli: RunCLI, tmp_path: Path) -> None:
    with http_server(MemoryStore()) as url, lock_state(tmp_path / "state"):
        exit_code, stderr = serve(run_cli, url, "--state", str(tmp_path / "state"))
    assert (exit_code, "another gateway uses the state folder" in stderr, "--state" in stderr) == (2, True, True)
