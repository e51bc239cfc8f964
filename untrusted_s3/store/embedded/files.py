"""The small files in an embedded store's directory: its credentials, and where its server listens."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from untrusted_s3.errors import UsageError

Ports = Mapping[str, int]

_CREDENTIALS = "credentials.json"
_ENDPOINT = "endpoint.json"
_UNCHECKED = "unchecked"
_DAMAGE = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The keys that the server accepts."""

    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def load(cls, directory: Path) -> Credentials:
        """Read the credentials. Raises UsageError if the file is missing or damaged."""
        path = directory / _CREDENTIALS
        try:
            stored = _read_json(path)
            return cls(str(stored["access_key"]), str(stored["secret_key"]))
        except _DAMAGE as error:
            raise UsageError(f"{path} cannot be read; delete it to get new credentials, the data stays") from error

    @classmethod
    def load_or_create(cls, directory: Path) -> Credentials:
        """Read the credentials, or make new ones if there is no file. Raises UsageError, or OSError from a write."""
        path = directory / _CREDENTIALS
        if not path.exists():
            _write_json(path, asdict(cls(secrets.token_hex(10).upper(), secrets.token_urlsafe(30))))
        return cls.load(directory)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a running server listens, and which processes keep it running.

    Attributes:
        endpoint_url: The URL of its S3 interface.
        bucket: The bucket that exists there.
        pid: The server's process.
        gateway_pid: The process that started it, and that it ends with.
        ports: The port of each service.
        boot: The start of the system in which it runs.
    """

    endpoint_url: str
    bucket: str
    pid: int
    gateway_pid: int
    ports: Ports
    boot: str

    @classmethod
    def read(cls, directory: Path) -> Endpoint | None:
        """Return what a running server's process wrote, or None if there is no such file or it says something else."""
        try:
            stored = _read_json(directory / _ENDPOINT)
            return cls(
                str(stored["endpoint_url"]),
                str(stored["bucket"]),
                int(stored["pid"]),
                int(stored["gateway_pid"]),
                {str(service): int(port) for service, port in stored["ports"].items()},
                str(stored.get("boot", "")),
            )
        except (*_DAMAGE, AttributeError):
            return None

    def write(self, directory: Path) -> None:
        """Tell other processes where the server listens. Raises OSError."""
        _write_json(directory / _ENDPOINT, asdict(self), with_place=True)


def current_boot() -> str:
    """Return what names this start of the system; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def is_in_doubt(directory: Path) -> bool:
    """Whether the files of the last server may lack its last writes, or be from different moments.

    So it is if that server was not stopped and the system has started since, or if the directory is a copy: it may have
    been made while the server wrote.
    """
    path = directory / _ENDPOINT
    try:
        place = _place(path.stat())
        is_here = bool(_read_json(path)["place"] == place)
    except FileNotFoundError:
        return any(directory.glob("volumes/*"))
    except _DAMAGE:
        return True
    last = Endpoint.read(directory)
    return not is_here or (last is not None and (last.boot != current_boot() or not last.boot))


def _place(status: os.stat_result) -> str:
    """Return what tells a file from its copies."""
    return f"{status.st_dev}:{status.st_ino}"


def is_unchecked(directory: Path) -> bool:
    """Return whether `set_unchecked` was called, also by an earlier process."""
    return (directory / _UNCHECKED).exists()


def set_unchecked(directory: Path, unchecked: bool) -> None:
    """Keep whether what others rely on has still to be compared with what the server has. Raises OSError."""
    path = directory / _UNCHECKED
    if unchecked:
        path.touch(mode=0o600)
    else:
        path.unlink(missing_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_store(directory: Path) -> bool:
    """Return whether an embedded store was started in a directory before."""
    return (directory / _CREDENTIALS).exists()


def write_last_ports(directory: Path, ports: Ports) -> None:
    """Keep the ports for the next start; no process may attach to the server from now on. Raises OSError."""
    _write_json(directory / _ENDPOINT, {"ports": dict(ports)}, with_place=True)


def read_last_ports(directory: Path) -> Ports:
    """Return the ports of the last run, or of the running server; empty if they are not known."""
    try:
        return {str(service): int(port) for service, port in _read_json(directory / _ENDPOINT)["ports"].items()}
    except (*_DAMAGE, AttributeError):
        return {}


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def _write_json(path: Path, value: Mapping[str, object], *, with_place: bool = False) -> None:
    """Replace a file atomically. Only its owner can read it. `with_place` adds what tells it from its copies."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({**value, "place": _place(os.fstat(file.fileno()))} if with_place else value, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
