"""Our gateway as a child process, started by its command line and watched from outside: HTTP, log, exit code, memory.

Like `Syncthing`, start it from the main thread. Its log is one JSON object a line; a line that is none is a traceback.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from untrusted_s3.compat.ports import free_port
from untrusted_s3.identity.certificate import load_or_create
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store.embedded.process import die_with_parent
from untrusted_s3.store.layout import StoreLocation

T = TypeVar("T")

_REPOSITORY = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
STOP_SECONDS = UpkeepSettings().stop_timeout + 5.0


class S3Server(Protocol):
    """A running S3 server with path-style addresses that has the bucket."""

    @property
    def endpoint_url(self) -> str: ...

    @property
    def bucket(self) -> str: ...

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...


class GatewayFailed(AssertionError):
    """The gateway died, or did not get there in time; the message ends with its log."""


class Gateway:
    """One gateway. `home` holds state, log and, if nothing else is said, the identity, and survives `stop` and another
    `start`."""

    def __init__(
        self,
        home: Path,
        store: S3Server | None,
        prefix: str = "",
        *,
        options: Sequence[str] = (),
        identity: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """A gateway on a prefix of `store`, or, with None, on an embedded store of its own below `home`.

        `options` are more options of `serve`. `identity` are the options that say where its identity comes from,
        `environment` more variables of its environment.
        """
        self.home = home
        self.store = store
        self.options = list(options)
        self.state = home / "state"
        self.log_file = home / "gateway.log"
        self.http_port = free_port()
        self.listen_address = f"tcp://127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix = f"{prefix}/" if prefix else ""
        home.mkdir(parents=True, exist_ok=True)
        self.environment = dict(environment or {})
        if identity is None:
            self.identity = ["--identity", str(home / "identity")]
            self.device_id = str(load_or_create(home / "identity").device_id)
        else:
            self.identity = list(identity)
            self.device_id = self.command("id", *self.identity).stdout.strip()

    # The process

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.serve_command(),
                cwd=_REPOSITORY,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            )
        try:
            self.wait_for("readiness", lambda: self.http_status("/readyz") == 200, _START_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def program(self) -> list[str]:
        """Return the interpreter's arguments that run the command line."""
        return ["-m", "untrusted_s3"]

    def serve_command(self) -> list[str]:
        """The command line of the gateway."""
        return [
            sys.executable,
            *self.program(),
            "serve",
            *self._store_options(),
            *self.identity,
            "--state",
            str(self.state),
            "--listen",
            self.listen_address,
            "--http",
            f"127.0.0.1:{self.http_port}",
            *self.options,
        ]

    def stop(self) -> int:
        """Send SIGTERM and `wait_ended`."""
        self._running().terminate()
        return self.wait_ended()

    def wait_ended(self) -> int:
        """Wait until it has ended, which must not take longer than STOP_SECONDS; its exit code."""
        try:
            return self._running().wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise GatewayFailed(f"the gateway does not end within {STOP_SECONDS:.0f} s\n{self.log_tail()}") from None
        finally:
            self.kill()

    def run_to_its_end(self) -> tuple[int, str]:
        """Start one that cannot run: its exit code and what it says."""
        done = subprocess.run(
            self.serve_command(),
            cwd=_REPOSITORY,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def kill(self) -> None:
        """Send SIGKILL. May be called twice."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start() if self.process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it. Where the test has passed so far, it must end well and have had no fault of its own."""
        if kind is not None:
            self.kill()
            return
        if self.process is not None:
            assert self.stop() == 0, self.log_tail()
        self.assert_no_faults()

    @property
    def pid(self) -> int:
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the gateway is not running"
        return self.process

    def peak_memory(self) -> int:
        """The most resident memory that the process ever had, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise GatewayFailed("the kernel does not tell the gateway's memory")

    # Other commands on the same store

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another command of ours; with `check` it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "untrusted_s3", *arguments, *self._store_options()],
            cwd=_REPOSITORY,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode != 0:
            raise GatewayFailed(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done

    def add_peer(self, device_id: str, addresses: Sequence[str] = (), share: Sequence[str] = ()) -> None:
        """Accept a device, with the command that an operator would use."""
        options = [f"--address={address}" for address in addresses] + [f"--share={folder}" for folder in share]
        self.command("peers", "add", device_id, *options)

    def _store_options(self) -> list[str]:
        if self.store is None:
            return ["--data", str(self.home / "data")]
        location = StoreLocation(self.store.bucket, self.prefix)
        return ["--store", str(location), "--endpoint-url", self.store.endpoint_url]

    def _environment(self) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "UNTRUSTED_S3_"))
        }
        own = {"UNTRUSTED_S3_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        if self.store is not None:
            own |= {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        return inherited | own | self.environment

    # HTTP

    def status(self) -> dict[str, Any]:
        """The answer of /api/status."""
        answer: dict[str, Any] = json.loads(self._http("/api/status")[1])
        return answer

    def peer(self, device_id: str) -> dict[str, Any]:
        """What the status says of an accepted device; nothing where the gateway does not know it (yet)."""
        return next((peer for peer in self.status()["peers"] if peer["device_id"] == device_id), {})

    def folder(self, folder: str) -> dict[str, Any]:
        """What the status says of a folder; nothing where there is none."""
        return next((one for one in self.status()["folders"] if one["id"] == folder), {})

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics, under their names with labels."""
        samples = {}
        for line in self._http("/metrics")[1].decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def counter(self, name: str) -> int:
        """One of the gateway's counters, under its name in untrusted_s3.counters."""
        return int(self.metrics()[f"untrusted_s3_{name}_total"])

    def store_requests(self) -> dict[str, int]:
        """How many requests of each kind were sent to the store."""
        start = 'untrusted_s3_store_requests_total{operation="'
        return {
            name[len(start) : -len('"}')]: int(value)
            for name, value in self.metrics().items()
            if name.startswith(start)
        }

    def http_status(self, path: str) -> int:
        """The status code of the answer, whichever it is."""
        return self._http(path, 200, 503)[0]

    def _http(self, path: str, *expected: int) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status not in (expected or (200,)):
            raise GatewayFailed(f"GET {path}: {response.status} {answer.decode(errors='replace')}\n{self.log_tail()}")
        return response.status, answer

    # Waiting

    def wait_for(self, what: str, check: Callable[[], T | None], timeout: float = 60) -> T:
        """Wait until `check` gives something true."""
        deadline = time.monotonic() + timeout
        while True:
            if self.process is None or self.process.poll() is not None:
                code = self.process.returncode if self.process else None
                raise GatewayFailed(f"the gateway ended with {code}, waiting for {what}\n{self.log_tail()}")
            try:
                answer = check()
            except ConnectionError:
                answer = None
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise GatewayFailed(f"waited {timeout:.0f} s in vain for {what}\n{self._last_words()}")
            time.sleep(_POLL_SECONDS)

    def wait_connected(self, device_id: str, timeout: float = 60, connected: bool = True) -> dict[str, Any]:
        """Wait until the status shows a device as connected, or with `connected=False` as not."""

        def is_so() -> dict[str, Any] | None:
            peer = self.peer(device_id)
            return peer if peer and peer["connected"] is connected else None

        return self.wait_for(f"{'a' if connected else 'no'} connection with {device_id}", is_so, timeout)

    def wait_folder(self, folder: str, timeout: float = 120, **expected: object) -> dict[str, Any]:
        """Wait until a folder is idle with nothing pending, and its status has the `expected` values."""
        expected = {"state": "idle", "pending_files": 0, **expected}

        def is_so() -> dict[str, Any] | None:
            status = self.folder(folder)
            return status if expected.items() <= status.items() else None

        return self.wait_for(f"folder {folder!r} with {expected}", is_so, timeout)

    def _last_words(self) -> str:
        try:
            return f"{json.dumps(self.status(), indent=1)}\n{self.log_tail()}"
        except (OSError, http.client.HTTPException, GatewayFailed) as error:
            return f"no status: {error}\n{self.log_tail()}"

    # The log

    def log(self) -> list[dict[str, Any]]:
        """All lines of the log. Fails where one is no JSON, nor the last words of a start that failed."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        lines = [line for line in lines if not line.startswith("error: ")]
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            raise GatewayFailed(f"not every line of the log is JSON:\n{self.log_tail()}") from None

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of one event with these values."""
        return [line for line in self.log() if {"event": event, **fields}.items() <= line.items()]

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def assert_no_faults(self) -> None:
        """Fail if it ever logged a traceback or anything critical."""
        faults = [line for line in self.log() if "exception" in line or line["level"] == "critical"]
        assert not faults, "\n".join(json.dumps(line, indent=1).replace("\\n", "\n") for line in faults)
