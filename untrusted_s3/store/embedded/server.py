"""The embedded S3 server: SeaweedFS's `weed mini` as a child process on the loopback interface.

One server at a time uses a directory. It holds an exclusive lock on the file `lock` there: it inherits the lock, so the
lock lasts as long as the server, even if the process that started it ends before.

    credentials.json   access key and secret key, made once
    endpoint.json      where the server listens, or listened last, so that its address stays the same
    security.toml      SeaweedFS's internal keys, new at each start
    seaweedfs.log      the log of the latest start
    volumes/           SeaweedFS's own data
    repaired/          what was cut off from damaged volumes, and their old indexes
    unchecked          is there while objects may be lost that others rely on

After a power cut, and on a copy that was made while a server ran, the server starts on whatever the disk has:
volumes.py and recovery.py repair it. disk_sync.py sees to it that a power cut loses nothing that others rely on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from untrusted_s3.errors import EmbeddedStoreInUse, StoreError, UsageError
from untrusted_s3.settings import EmbeddedSettings
from untrusted_s3.store.embedded.files import (
    Credentials,
    Endpoint,
    Ports,
    current_boot,
    is_in_doubt,
    is_unchecked,
    set_unchecked,
    write_last_ports,
)
from untrusted_s3.store.embedded.ports import choose_ports
from untrusted_s3.store.embedded.process import (
    BUCKET,
    POLL_INTERVAL,
    PortTakenError,
    ServerProcess,
    answers,
    find_weed,
)
from untrusted_s3.store.embedded.recovery import Starting, remove_objects_without_data
from untrusted_s3.store.embedded.volumes import repair_volumes

_DEFAULTS = EmbeddedSettings()
_START_ATTEMPTS = 3
_NAMES_SHOWN = 20
_logger = structlog.get_logger()


@dataclass(slots=True)
class _Own:
    """The server process that an EmbeddedStore started, and the lock on its directory."""

    process: ServerProcess
    lock: int
    stop_timeout: float


@dataclass
class EmbeddedStore:
    """A running embedded server. As a context manager it stops the server if this process started it.

    Attributes:
        endpoint_url: The URL for an S3 client with path-style addresses.
        bucket: The bucket, which exists.
        access_key: The access key of the credentials.
        secret_key: The secret key of the credentials.
        pid: The server's process.
        directory: Where its data are.
    """

    endpoint_url: str
    bucket: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    directory: Path
    _own: _Own | None = field(default=None, repr=False)

    @classmethod
    def start(
        cls,
        directory: Path,
        settings: EmbeddedSettings = _DEFAULTS,
        *,
        weed: Path | None = None,
        choose_ports: Callable[[Path | None], Ports] = choose_ports,
    ) -> Self:
        """Start a server on `directory`, which is created if needed, and wait until it answers.

        `weed` is the server program; without it, the installed one is taken. `choose_ports` gets the directory at the
        first attempt, and None when a port turned out to be taken. Call this from the main thread: on Linux the server
        ends when the thread that started it does. What a power cut has damaged is repaired before.

        Raises EmbeddedStoreMissing if the server program is not installed, EmbeddedStoreInUse or another UsageError if
        the directory cannot be used, StoreUnreachable if the server does not answer in time, StoreError if it cannot be
        started.
        """
        claim = cls._claim(directory, settings)
        if isinstance(claim, int):
            return cls._start_locked(directory.resolve(), claim, settings, weed, choose_ports)
        raise EmbeddedStoreInUse(
            f"{directory} is in use: another gateway runs the embedded store there (process {claim.pid})"
        )

    @classmethod
    def attach_or_start(cls, directory: Path, settings: EmbeddedSettings = _DEFAULTS) -> Self:
        """Use the server that runs on `directory`, or start one. `stop` does not end a server that ran before.

        Raises as `start` does, but not if the directory is in use by a server that answers.
        """
        claim = cls._claim(directory, settings)
        if isinstance(claim, int):
            return cls._start_locked(directory.resolve(), claim, settings, None, choose_ports)
        return claim

    @property
    def in_doubt(self) -> bool:
        """Whether objects may be lost that others rely on: the files were not those of a server that ended well.

        It stays so, for later starts too, until `checked` is called.
        """
        return is_unchecked(self.directory)

    def checked(self) -> None:
        """Note that everything that relies on objects was compared with what is there. Raises OSError."""
        set_unchecked(self.directory, False)

    def stop(self) -> None:
        """End the server if this object started it. May be called twice."""
        own, self._own = self._own, None
        if own is None:
            return
        with contextlib.suppress(OSError):
            write_last_ports(self.directory, own.process.ports)  # first: no process may attach from now on
        own.process.end(own.stop_timeout)
        os.close(own.lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @classmethod
    def _claim(cls, directory: Path, settings: EmbeddedSettings) -> int | Self:
        """Return the locked descriptor of a free directory, or the server that uses it.

        A lock without an answering server belongs to one that starts or ends; wait for it.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"the data folder {directory} cannot be used: {error.strerror}") from error
        deadline = time.monotonic() + settings.start_timeout
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
                        raise EmbeddedStoreInUse(
                            f"{directory} is locked by another process whose store does not answer"
                        ) from None
                time.sleep(POLL_INTERVAL)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(lock)
            raise

    @classmethod
    def _running(cls, directory: Path) -> Self | None:
        """Return the server that `endpoint.json` names, if it accepts our credentials and stays.

        A server whose gateway was killed still answers for a moment, but is about to end.
        """
        endpoint = Endpoint.read(directory)
        if endpoint is None:
            return None
        try:
            for process in (endpoint.pid, endpoint.gateway_pid):
                os.kill(process, 0)
            credentials = Credentials.load(directory)
        except (OSError, OverflowError, UsageError):
            return None
        if "s3" not in endpoint.ports or not answers(endpoint.ports["s3"], credentials):
            return None
        keys = credentials.access_key, credentials.secret_key
        return cls(endpoint.endpoint_url, endpoint.bucket, *keys, endpoint.pid, directory)

    @classmethod
    def _start_locked(
        cls,
        directory: Path,
        lock: int,
        settings: EmbeddedSettings,
        weed: Path | None,
        choose_ports: Callable[[Path | None], Ports],
    ) -> Self:
        try:
            if threading.current_thread() is not threading.main_thread():
                raise RuntimeError("the embedded store must be started from the main thread")
            weed = weed or find_weed()
            credentials = Credentials.load_or_create(directory)
            if is_in_doubt(directory) | is_unchecked(directory) | _repair_volumes(weed, directory):
                set_unchecked(directory, True)
                _logger.info("checking the embedded store", directory=str(directory))
                starting = Starting(weed, directory, lock, credentials, settings, choose_ports)
                lost = remove_objects_without_data(starting, BUCKET)
                if lost:
                    _logger.warning("objects without data removed", count=len(lost), first=lost[:_NAMES_SHOWN])
            for attempt in range(_START_ATTEMPTS):
                ports = choose_ports(directory if attempt == 0 else None)
                try:
                    process = ServerProcess.start(weed, directory, lock, ports, credentials, settings.memory_limit)
                except PortTakenError:
                    continue
                try:
                    process.wait_until_ready(settings.start_timeout)
                    url = f"http://127.0.0.1:{ports['s3']}"
                    Endpoint(url, BUCKET, process.pid, os.getpid(), ports, current_boot()).write(directory)
                except PortTakenError:
                    process.end(settings.stop_timeout)
                    continue
                except BaseException:
                    process.end(settings.stop_timeout)
                    raise
                own = _Own(process, lock, settings.stop_timeout)
                keys = credentials.access_key, credentials.secret_key
                return cls(url, BUCKET, *keys, process.pid, directory, own)
            raise StoreError("the embedded store found no free ports: other programs take them as it starts")
        except OSError as error:
            os.close(lock)
            raise StoreError(f"the embedded store cannot be started in {directory}: {error}") from error
        except BaseException:
            os.close(lock)
            raise


def _repair_volumes(weed: Path, directory: Path) -> bool:
    """Repair damaged volumes and return whether there were any. Raises OSError or StoreError."""
    repaired = repair_volumes(weed, directory)
    for volume in repaired:
        _logger.warning("volume repaired", volume=volume.name, cut_bytes=volume.cut, kept=str(volume.kept))
    return bool(repaired)
