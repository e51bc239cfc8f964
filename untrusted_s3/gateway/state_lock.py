"""The lock on the folder with the local state: two gateways must not write to it at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from untrusted_s3.errors import StateFolderInUse, StateFolderUnusable


@contextmanager
def lock_state(directory: Path) -> Iterator[None]:
    """Hold the folder, which is created if it is missing, for as long as the context lasts.

    The lock ends with the process, however it ends. Raises StateFolderInUse or StateFolderUnusable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateFolderUnusable(f"the state folder {directory} cannot be written to: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StateFolderInUse(f"another gateway uses the state folder {directory}") from None
    except OSError as error:
        os.close(lock)
        raise StateFolderUnusable(f"the state folder {directory} cannot be locked: {error}") from error
    try:
        yield
    finally:
        os.close(lock)
