"""A gateway as a child process, started by its command line and watched by HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from untrusted_s3.compat.child_process import ChildProcess
from untrusted_s3.compat.commands import PROGRAM, ReachableStore, command_environment, run_command, store_arguments
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.identity.files import load_or_create
from untrusted_s3.settings import UpkeepSettings

T = TypeVar("T")

# These bound failures only; on a busy machine everything takes long.
START_TIMEOUT = 120.0
WAIT_TIMEOUT = 180.0
STOP_TIMEOUT = UpkeepSettings().stop_timeout + 60.0
HTTP_TIMEOUT = 60.0

_POLL_INTERVAL = 0.05


class GatewayProcess(ChildProcess):
    """A gateway on a prefix (empty, or ending in a slash) of a store; a context manager.

    `home` holds its state, its log and, without other options in `identity`, its identity; it survives `stop` and
    another `start`. With None as `store` the gateway runs a store below `home` itself. `options` are more options of
    `serve`, `environment` more variables, and `program` is what is run instead of this program, for settings that are
    not options. Start it from the main thread: on Linux it is told to end when the thread that started it ends.
    """

    def __init__(
        self,
        home: Path,
        store: ReachableStore | None,
        prefix: str = "",
        *,
        options: Sequence[str] = (),
        identity: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        super().__init__(home / "gateway.log", max(STOP_TIMEOUT, self.patience))
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.store = store
        self.prefix = prefix
        self.state = home / "state"
        self.program = program
        self.listen_address = f"tcp://127.0.0.1:{self.reserve_port()}"
        self.http_port = self.reserve_port()
        self._options = list(options)
        self._environment = {"UNTRUSTED_S3_LOG_FORMAT": "json", **(environment or {})}
        if identity is None:
            self._identity = ["--identity", str(home / "identity")]
            self.device_id = str(load_or_create(home / "identity").device_id)
        else:
            self._identity = list(identity)
            self.device_id = self.command("id", *identity).stdout.strip()

    # The process

    def start(self) -> Self:
        """Start the gateway and wait until it is ready. Raises GatewayUnreachable."""
        self.launch(self.serve_command(), command_environment(self.store, self._environment))
        try:
            self.wait_for("readiness", self._is_ready, self._bound(START_TIMEOUT))
        except BaseException:
            self.kill()
            raise
        return self

    def serve_command(self) -> list[str]:
        """Return the command line of the gateway."""
        return [
            *(*self.program, "serve", *self._store_arguments(), *self._identity, "--state", str(self.state)),
            *("--listen", self.listen_address, "--http", f"127.0.0.1:{self.http_port}"),
            *self._options,
        ]

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the gateway, or kill it if the context ends by an exception."""
        if kind is None:
            self.stop()
        else:
            self.kill()

    def peak_memory(self) -> int:
        """Return the most resident memory that the running process ever had, in bytes (Linux only)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise OSError("the kernel does not tell the memory of the gateway")

    # Other commands on the same store

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of this program on the gateway's store. Raises GatewayUnreachable if it fails."""
        environment = command_environment(self.store, self._environment)
        done = run_command([*arguments, *self._store_arguments()], environment, self._bound(START_TIMEOUT))
        if done.returncode != 0:
            raise GatewayUnreachable(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done

    def add_peer(self, device_id: str, addresses: Sequence[str] = (), share: Sequence[str] = ()) -> None:
        """Accept a device, with the command that an operator would use."""
        options = [f"--address={address}" for address in addresses] + [f"--share={folder}" for folder in share]
        self.command("peers", "add", device_id, *options)

    def _store_arguments(self) -> list[str]:
        if self.store is None:
            return ["--data", str(self.home / "data")]
        return store_arguments(self.store, self.prefix)

    # HTTP

    def http_get(self, path: str) -> tuple[int, bytes]:
        """Return status code and body of an HTTP GET. Raises OSError or http.client.HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=self._bound(HTTP_TIMEOUT))
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def status(self) -> dict[str, Any]:
        """Return the answer of /api/status."""
        answer: dict[str, Any] = json.loads(self._http_get_ok("/api/status"))
        return answer

    def peer(self, device_id: str) -> dict[str, Any]:
        """Return what the status says of an accepted device; empty if the gateway does not know it (yet)."""
        return next((peer for peer in self.status()["peers"] if peer["device_id"] == device_id), {})

    def folder(self, folder_id: str) -> dict[str, Any]:
        """Return what the status says of a folder; empty if the gateway does not know it (yet)."""
        return next((folder for folder in self.status()["folders"] if folder["id"] == folder_id), {})

    def metrics(self) -> dict[str, float]:
        """Return all samples of /metrics by their names with labels."""
        lines = self._http_get_ok("/metrics").decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def counter(self, name: str) -> int:
        """Return one of the gateway's counters by its name in `untrusted_s3.counters`."""
        return int(self.metrics()[f"untrusted_s3_{name}_total"])

    def store_requests(self) -> dict[str, int]:
        """Return how many requests of each kind the gateway has sent to the store."""
        start, end = 'untrusted_s3_store_requests_total{operation="', '"}'
        return {
            name.removeprefix(start).removesuffix(end): int(value)
            for name, value in self.metrics().items()
            if name.startswith(start)
        }

    def _http_get_ok(self, path: str) -> bytes:
        status, body = self.http_get(path)
        if status != http.HTTPStatus.OK:
            raise GatewayUnreachable(f"GET {path}: {status} {body.decode(errors='replace')}\n{self.log_tail()}")
        return body

    def _is_ready(self) -> bool:
        return self.http_get("/readyz")[0] == http.HTTPStatus.OK

    # Waiting

    def _bound(self, seconds: float) -> float:
        return max(seconds, self.patience)

    def wait_for(self, what: str, check: Callable[[], T | None], timeout: float | None = None) -> T:
        """Return what `check` returns as soon as it is true. Raises GatewayUnreachable after `timeout` seconds.

        Without `timeout`, this and the other waits take WAIT_TIMEOUT seconds at most, or `patience` if that is more.
        """
        if timeout is None:
            timeout = self._bound(WAIT_TIMEOUT)
        deadline = time.monotonic() + timeout
        while True:
            answer = None
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = check()
            if answer:
                return answer
            code = self.process.poll() if self.process is not None else None
            if code is not None or time.monotonic() > deadline:
                problem = f"took longer than {timeout:.0f} s" if code is None else f"ended with {code}"
                raise GatewayUnreachable(f"our gateway {problem}, waiting for {what}; its log ends:\n{self.log_tail()}")
            time.sleep(_POLL_INTERVAL)

    def wait_connected(self, device_id: str, timeout: float | None = None, connected: bool = True) -> dict[str, Any]:
        """Wait until the status shows a device as connected, or with `connected=False` as not; return its status."""

        def is_so() -> dict[str, Any] | None:
            peer = self.peer(device_id)
            return peer if peer and peer["connected"] is connected else None

        return self.wait_for(f"{'a' if connected else 'no'} connection with {device_id}", is_so, timeout)

    def wait_folder(self, folder_id: str, timeout: float | None = None, **expected: object) -> dict[str, Any]:
        """Wait until a folder is idle with nothing pending, and its status has `expected` values; return its status."""
        expected = {"state": "idle", "pending_files": 0, **expected}

        def is_so() -> dict[str, Any] | None:
            status = self.folder(folder_id)
            return status if expected.items() <= status.items() else None

        return self.wait_for(f"folder {folder_id!r} with {expected}", is_so, timeout)
