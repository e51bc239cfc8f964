"""A local disk without room: what is written to the databases of the local state fails."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from untrusted_s3.errors import LocalDiskFailed
from untrusted_s3.index.database import Database

_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE", "REPLACE", "BEGIN; ", "PRAGMA WAL_CHECKPOINT")


class _Full(LocalDiskFailed, sqlite3.OperationalError):
    pass


class LocalDisk:
    """The disk. Reading goes on while it is full.

    Attributes:
        writes: How many statements have written, or tried to.
        failed: How many of them found no room.
    """

    def __init__(self) -> None:
        self.writes = self.failed = 0
        self._full_from: int | None = None

    def fill(self, after: int = 0) -> None:
        """Let there be room for so many writes only."""
        self._full_from = self.writes + after

    def free(self) -> None:
        """Make room."""
        self._full_from = None

    @contextlib.contextmanager
    def another(self) -> Iterator[None]:
        """Let what happens in the block be on another disk."""
        full_from, self._full_from, writes = self._full_from, None, self.writes
        yield
        self._full_from, self.writes = full_from, writes

    def check(self, statement: str) -> None:
        """Count a statement. Raises LocalDiskFailed if it has no room."""
        if not statement.strip().upper().startswith(_WRITES):
            return
        self.writes += 1
        if self._full_from is not None and self.writes > self._full_from:
            self.failed += 1
            raise _Full("the local disk cannot be written to: database or disk is full")


@contextlib.contextmanager
def local_disk() -> Iterator[LocalDisk]:
    """Provide the disk on which all databases are until the block ends."""
    disk = LocalDisk()

    def checked(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(connection: Database, statement: str, *arguments: Any) -> Any:
            disk.check(statement)
            return original(connection, statement, *arguments)

        return call

    with contextlib.ExitStack() as patches:
        for name in ("execute", "executemany", "executescript"):
            patches.enter_context(mock.patch.object(Database, name, checked(getattr(Database, name))))
        yield disk
