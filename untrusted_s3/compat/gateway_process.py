"""Commands of our own as child processes on an embedded store, among them a gateway."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from untrusted_s3.compat.syncthing import free_port
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.identity.certificate import load_or_create
from untrusted_s3.limits import DRAIN_TIMEOUT
from untrusted_s3.store.embedded.process import die_with_parent
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import StoreLocation

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_STOP_SECONDS = DRAIN_TIMEOUT + 5
_LOG_LINES = 20


def store_options(store: EmbeddedStore) -> list[str]:
    """The options that name the store."""
    return ["--store", str(StoreLocation(store.bucket, "")), "--endpoint-url", store.endpoint_url]


def command_environment(store: EmbeddedStore, **own: str) -> dict[str, str]:
    """The environment of a command that uses the store; `own` are more variables. Nobody's settings reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "UNTRUSTED_S3_"))}
    keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
    return inherited | keys | own


class GatewayProcess:
    """A gateway, running for as long as the context lasts. `home` holds its identity, state and log.

    Enter it from the main thread: on Linux it is told to end when the thread that started it does.
    """

    def __init__(self, home: Path, store: EmbeddedStore) -> None:
        self.home = home
        self.device_id = load_or_create(home / "identity").device_id
        self.listen_address = f"tcp://127.0.0.1:{free_port()}"
        self._store = store
        self._http_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts it and waits until it is ready. Raises GatewayUnreachable."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "untrusted_s3", "serve", *store_options(self._store)),
                    # The embedded store is known to keep conditional writes apart; the trial would take seconds.
                    "--single-writer",
                    *("--identity", str(self.home / "identity"), "--state", str(self.home / "state")),
                    *("--listen", self.listen_address, "--http", f"127.0.0.1:{self._http_port}"),
                ],
                env=command_environment(self._store, UNTRUSTED_S3_LOG_FORMAT="json"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends it; at once where the context ends by an exception, as nobody wants to know what it has."""
        if kind is not None and self._process is not None:
            self._process.kill()
        self.stop()

    def stop(self) -> None:
        """Lets it write down what it has and end; kills it if that takes too long. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def _log(self) -> Path:
        return self.home / "gateway.log"

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = "is not ready in time" if process.returncode is None else f"ended with {process.returncode}"
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
                raise GatewayUnreachable(f"our gateway {ended}; the end of its log:\n{tail}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        return False
