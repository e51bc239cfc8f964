"""Local SQLite files. They are caches: an unusable one is deleted and made again.

The index of a write-ahead log is in memory, not in a file beside the database: with SQLite's `unix-excl` all
connections are of one process (https://sqlite.org/vfs.html, "Multiple VFSes"). A file that is mapped into memory would
end the process with SIGBUS when somebody truncates it, and with something else in its place nothing could be written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from untrusted_s3.errors import LocalDiskFailed, StateDamaged, StateFolderUnusable
from untrusted_s3.units import MIB

Result = TypeVar("Result")

# Bytes of a write-ahead log that are kept for what follows.
WAL_KEPT = 1 * MIB

# Our statements violate no constraint, so a violation means that an index does not fit its table.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}
_DISK_FAILURE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}


class _DiskFailed(LocalDiskFailed, sqlite3.OperationalError):
    """What SQLite says of a disk that is full or fails."""


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is damaged."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _noticing(method: Callable[..., Result]) -> Callable[..., Result]:
    def call(cursor: _Cursor, *arguments: Any) -> Result:
        try:
            return method(cursor, *arguments)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise cursor.connection.damaged(str(error)) from error
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_FAILURE:
                raise _DiskFailed(f"the local disk cannot be written to: {error}") from error
            raise

    return call


class _Cursor(sqlite3.Cursor):
    connection: Database

    execute = _noticing(sqlite3.Cursor.execute)
    executemany = _noticing(sqlite3.Cursor.executemany)
    fetchone = _noticing(sqlite3.Cursor.fetchone)
    fetchall = _noticing(sqlite3.Cursor.fetchall)
    __next__ = _noticing(sqlite3.Cursor.__next__)


class Database(sqlite3.Connection):
    """A connection that calls `on_damage` and raises StateDamaged when the file turns out to be damaged.

    It raises LocalDiskFailed when the disk is full or fails. What was written before stays, and a transaction has no
    effect.
    """

    on_damage: Callable[[], None] = staticmethod(lambda: None)

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    # Those of sqlite3 do not call the cursor's methods.
    def execute(self, *arguments: Any) -> Any:
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor().executemany(*arguments)

    def damaged(self, what: str) -> StateDamaged:
        """Call `on_damage` and return the error to raise."""
        self.on_damage()
        return StateDamaged(f"the local state is damaged ({what}) and is made again from the store")


def open_database(path: Path, schema: str, version: int, *, shrinks: bool = False) -> Database:
    """Open the database at `path` in autocommit mode; `with connection:` ends a transaction begun by `BEGIN`.

    With `shrinks`, `PRAGMA incremental_vacuum` gives free pages of a new file back to the file system.

    A file of another schema version, or one whose damage shows at once, is replaced by an empty one. Raises
    StateFolderUnusable where the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = _try_open(path, schema, version, shrinks)
        if connection is None:
            remove_database(path)
            connection = _try_open(path, schema, version, shrinks)
    except (OSError, sqlite3.OperationalError) as error:
        raise StateFolderUnusable(f"the state folder {path.parent} cannot be used: {error}") from error
    assert connection is not None
    return connection


def wal_size(path: Path) -> int:
    """Return the bytes of the write-ahead log of the database at `path`."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


def remove_database(path: Path) -> None:
    """Delete a database and the files that SQLite keeps beside it, also those of earlier programs."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _try_open(path: Path, schema: str, version: int, shrinks: bool) -> Database | None:
    uri = f"{path.absolute().as_uri()}?vfs=unix-excl"
    connection = sqlite3.connect(uri, isolation_level=None, check_same_thread=False, factory=Database, uri=True)
    try:
        if shrinks:  # has an effect before anything is written
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        # In pages. The entries of a segment are spread all over the index of name hashes: in a large folder they touch
        # more than the default of 1000 pages, and every checkpoint of the WAL waits for the disk.
        connection.execute("PRAGMA wal_autocheckpoint = 8192")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT}")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            # In one transaction: half a schema, left by a crash, would make every later start fail.
            connection.executescript(f"BEGIN; {schema}; PRAGMA user_version = {version:d}; COMMIT")
        elif found != version:
            connection.close()
            return None
    except sqlite3.OperationalError as error:
        connection.close()
        if str(error) == "unsupported file format":  # the header is damaged
            return None
        raise
    except (sqlite3.DatabaseError, StateDamaged):
        connection.close()
        return None
    return connection
