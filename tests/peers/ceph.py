"""A real Ceph RGW, the stricter of the two S3 servers. Its data is in memory, and it ends when this process does.

A script does the work: `install SUITE ROOT`, `start ROOT DATA PORT memstore` and `stop DATA`. `$UNTRUSTED_S3_RGW` names
it (docs/testing.md). It needs root and Debian. Its monitor has a fixed port, so one runs on a machine at a time, and
others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from tests.peers.debian import PeerUnavailable, cache_directory
from tests.peers.syncthing import free_port
from tests.waiting import PATIENCE
from untrusted_s3.store.connection import S3Credentials, connect

_SUITE = "sid"
_MONITOR_PORT = 3300
# Other tests may have it for as long as they all take.
_TURN_SECONDS = 3 * PATIENCE
_POLL_SECONDS = 0.1

# Starts the daemons, prints a line, and ends them at the end of its input: when this process closes it or dies.
_KEEPER: Final = """
trap '' PIPE
timeout "$5" "$1" start "$2" "$3" "$4" memstore </dev/null >"$3.log" 2>&1 && echo started
read -r _
exec "$1" stop "$3"
"""


@dataclass(frozen=True)
class CephRGW:
    """A running RGW with an empty bucket. Implements `s3_server.S3Server`."""

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)


@contextlib.contextmanager
def ceph_rgw(data: Path) -> Iterator[CephRGW]:
    """Run one on the new folder `data`. Raises PeerUnavailable if this machine cannot."""
    script = _script()
    parent = cache_directory() / "ceph"
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("w") as lock:
        _wait_for_turn(lock.fileno())
        root = _installed(script, parent)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", _MONITOR_PORT)) == 0:
                raise PeerUnavailable(f"port {_MONITOR_PORT} is taken: another Ceph runs on this machine")
        with _daemons(script, root, data, lock.fileno()) as server:
            yield server


def _script() -> Path:
    named = os.environ.get("UNTRUSTED_S3_RGW")
    if not named:
        raise PeerUnavailable("no Ceph RGW: UNTRUSTED_S3_RGW does not name the script that starts one")
    script = Path(named).resolve()
    if not os.access(script, os.X_OK):
        raise PeerUnavailable(f"no Ceph RGW: UNTRUSTED_S3_RGW names {script}, which is no program")
    if os.geteuid() != 0:
        raise PeerUnavailable("no Ceph RGW: it needs root, for a root folder of its own")
    for program in ("apt-get", "dpkg-deb", "unshare"):
        if shutil.which(program) is None:
            raise PeerUnavailable(f"no Ceph RGW: there is no {program} here to get it from Debian with")
    return script


def _wait_for_turn(lock: int) -> None:
    deadline = time.monotonic() + _TURN_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise PeerUnavailable(f"other tests have had the Ceph RGW for {_TURN_SECONDS:.0f} s") from None
        time.sleep(_POLL_SECONDS)


def _installed(script: Path, parent: Path) -> Path:
    root = parent / _SUITE
    if not root.is_dir():
        with tempfile.TemporaryDirectory(dir=parent, prefix=".install-") as work:
            unpacked = Path(work, "root")
            command = [str(script), "install", _SUITE, str(unpacked)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise PeerUnavailable(f"installing the Ceph RGW took more than {PATIENCE:.0f} s") from error
            if done.returncode != 0:
                raise PeerUnavailable(f"the Ceph RGW cannot be installed: {(done.stderr or done.stdout).strip()}")
            unpacked.rename(root)
    return root


@contextlib.contextmanager
def _daemons(script: Path, root: Path, data: Path, lock: int) -> Iterator[CephRGW]:
    data.mkdir(parents=True)
    port = free_port()
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER, "keeper", script, root, data, str(port), str(PATIENCE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "AK": access_key, "SK": secret_key},
        pass_fds=[lock],  # the turn is over when the daemons are
        start_new_session=True,  # Ctrl-C must not end it first
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    try:
        if keeper.stdout.readline() != b"started\n":
            raise PeerUnavailable(f"the Ceph RGW does not start: {_log(data)}")
        server = CephRGW(f"http://127.0.0.1:{port}", "tests", access_key, secret_key)
        _create_bucket(server, data)
        yield server
    finally:
        keeper.stdin.close()
        keeper.wait(PATIENCE)
        keeper.stdout.close()


def _create_bucket(server: CephRGW, data: Path) -> None:
    client = connect(server.endpoint_url, S3Credentials(server.access_key, server.secret_key)).client
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                client.create_bucket(Bucket=server.bucket)
                return
            except (BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline:
                    raise PeerUnavailable(f"the Ceph RGW does not serve: {error}\n{_log(data)}") from error
            time.sleep(_POLL_SECONDS)
    finally:
        client.close()


def _log(data: Path) -> str:
    files = [data.with_name(f"{data.name}.log"), data / "log" / "boot"]
    return "\n".join(file.read_text(errors="replace").strip() for file in files if file.exists())
