"""The devices that are compared: real processes, set up to take one folder from one device and serve it to another.

All listen on the loopback interface and end with the context, or with this process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.far_store import NEAR, Distance, far_away
from bench.measure import MOUNT, RECEIVER, STORE
from untrusted_s3.compat.ports import free_port
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.store.embedded.process import die_with_parent
from untrusted_s3.store.embedded.server import EmbeddedStore

FOLDER = "bench"
REPOSITORY = Path(__file__).resolve().parents[1]

_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class ReceiverUnavailable(Exception):
    """This machine cannot run the receiver; the message says why."""


class ReceiverFailed(Exception):
    """A receiver did not start, or died."""


@dataclass(frozen=True)
class Receiver:
    """A running receiver.

    `processes` are the process IDs to measure, by role. `check` raises ReceiverFailed if one of them has ended.
    `settle` waits until the receiver has finished with the folder, which holds the given number of files. `store` is
    its store and the URL of that, if it has one of its own.
    """

    device_id: str
    address: str
    processes: dict[str, int]
    check: Callable[[], None]
    settle: Callable[[int], None]
    store: tuple[EmbeddedStore, str] | None = None


@dataclass(frozen=True)
class Bench:
    """The needs of a receiver: an empty directory, the program of Syncthing, and the devices to accept.

    `distance` is how far away the store is.
    """

    directory: Path
    syncthing: Path
    devices: Sequence[Syncthing]
    distance: Distance = NEAR


MakeReceiver = Callable[[Bench], AbstractContextManager[Receiver]]


@contextmanager
def gateway(bench: Bench) -> Iterator[Receiver]:
    """Run the gateway by its command line, on a SeaweedFS of its own."""
    with new_store(bench.directory, bench.distance) as (store, url):
        environment = store_environment(store)
        identity = f"--identity={bench.directory / 'identity'}"
        store_options = [f"--store=s3://{store.bucket}/bench", f"--endpoint-url={url}"]
        for device in bench.devices:
            _untrusted_s3(["peers", "add", device.device_id, *store_options, identity], environment)
        device_id = _untrusted_s3(["id", identity], environment).strip()
        address, http_port = f"tcp://127.0.0.1:{free_port()}", free_port()
        command = [sys.executable, "-m", "untrusted_s3", "serve", *store_options, identity]
        command += [f"--state={bench.directory / 'state'}", f"--listen={address}", f"--http=127.0.0.1:{http_port}"]
        with _program(command, bench.directory / "gateway.log", environment) as process:

            def check() -> None:
                _check(process, bench.directory / "gateway.log")

            def settled() -> bool:
                folders = json.loads(_get(http_port, "/api/status") or "{}").get("folders", [])
                return any(folder["state"] == "idle" and not folder["pending_files"] for folder in folders)

            _wait(lambda: _get(http_port, "/readyz") is not None, check, "the gateway is ready")
            yield Receiver(
                device_id,
                address,
                {RECEIVER: process.pid, STORE: store.pid},
                check,
                lambda files: _wait(settled, check, "the gateway is idle"),
                (store, url),
            )


@contextmanager
def native(bench: Bench) -> Iterator[Receiver]:
    """Run a receive-encrypted Syncthing on the local disk."""
    with _receive_encrypted(bench, bench.directory / "encrypted") as device:
        yield _syncthing_receiver(device, {}, lambda: None)


@contextmanager
def s3fs(bench: Bench) -> Iterator[Receiver]:
    """Run a receive-encrypted Syncthing on an s3fs mount of a SeaweedFS of its own, with the default settings of s3fs.

    Raises ReceiverUnavailable if s3fs or FUSE is missing.
    """
    _require_s3fs()
    with (
        new_store(bench.directory, bench.distance) as (store, url),
        _mount(store, url, bench.directory) as (mount, process),
        _receive_encrypted(bench, mount / "encrypted") as device,
    ):
        parts = {MOUNT: process.pid, STORE: store.pid}
        yield _syncthing_receiver(device, parts, lambda: _check(process, bench.directory / "s3fs.log"))


def _require_s3fs() -> None:
    """Raise ReceiverUnavailable, with the reason, if s3fs cannot work."""
    if shutil.which("s3fs") is None:
        raise ReceiverUnavailable("s3fs is not installed (Debian's package s3fs)")
    _unmounter()
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise ReceiverUnavailable(f"no FUSE on this machine: /dev/fuse: {error.strerror}") from error


@contextmanager
def new_store(directory: Path, distance: Distance) -> Iterator[tuple[EmbeddedStore, str]]:
    """Run a SeaweedFS of its own. Gives it and its URL, through which it is so far away."""
    with EmbeddedStore.start(directory / "seaweedfs") as store:
        url = urlsplit(store.endpoint_url)
        assert url.hostname is not None and url.port is not None
        with far_away(url.hostname, url.port, distance) as port:
            yield store, f"http://{url.hostname}:{port}"


def store_environment(store: EmbeddedStore) -> dict[str, str]:
    """Return this process's environment with the store's credentials, without other settings for S3 or this program."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "UNTRUSTED_S3_"))}
    return {**kept, "AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}


@contextmanager
def _receive_encrypted(bench: Bench, folder: Path) -> Iterator[Syncthing]:
    with Syncthing(bench.syncthing, bench.directory / "receiver", "receiver") as receiver:
        for device in bench.devices:
            receiver.add_device(device.device_id, device.name)
        devices = {device.device_id: "" for device in bench.devices}
        receiver.add_folder(FOLDER, folder, devices, type="receiveencrypted")
        receiver.wait_in_sync(FOLDER)
        yield receiver


def _syncthing_receiver(device: Syncthing, processes: dict[str, int], check_others: Callable[[], None]) -> Receiver:
    def check() -> None:
        if device.process is None or device.process.poll() is not None:
            raise ReceiverFailed(f"the receiving Syncthing has ended:\n{device.log_tail()}")
        check_others()

    def settle(files: int) -> None:
        device.wait_in_sync(FOLDER, expected_files=files)

    return Receiver(device.device_id, device.listen_address, {RECEIVER: device.pid, **processes}, check, settle)


@contextmanager
def _mount(store: EmbeddedStore, url: str, directory: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    mount, temporary, log = directory / "mount", directory / "s3fs temporary", directory / "s3fs.log"
    mount.mkdir()
    temporary.mkdir()
    password = directory / "s3fs password"
    password.touch(mode=0o600)
    password.write_text(f"{store.access_key}:{store.secret_key}\n")
    options = f"url={url},use_path_request_style,passwd_file={password},tmpdir={temporary}"
    command = ["s3fs", store.bucket, str(mount), "-f", "-o", options]
    with _program(command, log, dict(os.environ)) as process:
        try:
            _wait(lambda: os.path.ismount(mount), lambda: _check(process, log), "s3fs has mounted the bucket")
            yield mount, process
        finally:
            _unmount(mount)


def _unmount(mount: Path) -> None:
    for options in (["-u"], ["-uz"]):  # the second works although a program has a file open there
        if not _is_mounted(mount):
            return
        subprocess.run([_unmounter(), *options, mount], check=False, capture_output=True, timeout=_STOP_SECONDS)


def _is_mounted(mount: Path) -> bool:
    """Return whether the kernel's table of mounts has it, even if the process that served it has ended."""
    text = Path("/proc/self/mountinfo").read_text()
    return str(mount.absolute()) in (line.split()[4].replace("\\040", " ") for line in text.splitlines())


def _unmounter() -> str:
    for program in ("fusermount3", "fusermount"):
        found = shutil.which(program)
        if found is not None:
            return found
    raise ReceiverUnavailable("fusermount is not installed (Debian's package fuse3)")


@contextmanager
def _program(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to this process, which ends everything in order
            preexec_fn=die_with_parent(),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise ReceiverFailed(f"{log.stem} has ended with status {process.returncode}:\n{tail}")


def _wait(condition: Callable[[], bool], check: Callable[[], None], what: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        check()
        if time.monotonic() > deadline:
            raise ReceiverFailed(f"waited {_START_SECONDS:.0f} s in vain until {what}")
        time.sleep(_POLL_SECONDS)


def _untrusted_s3(arguments: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "untrusted_s3", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReceiverFailed(f"untrusted-s3 {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _get(port: int, path: str) -> bytes | None:
    """Return the body of an answer with status 200, else None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return body if response.status == http.HTTPStatus.OK else None
    return None
