"""Opening the local SQLite files. They are caches: one that cannot be used is thrown away and made anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from untrusted_s3.errors import UsageError


def open_database(path: Path, schema: str, version: int) -> sqlite3.Connection:
    """The database at `path` with this schema, in autocommit mode; use `with connection:` around a transaction begun
    by `BEGIN`.

    A damaged file, or one of another `version`, is replaced by an empty one. Raises UsageError where the folder
    cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = _try_open(path, schema, version)
        if connection is None:
            remove_database(path)
            connection = _try_open(path, schema, version)
    except (OSError, sqlite3.OperationalError) as error:
        raise UsageError(
            f"the state folder {path.parent} cannot be used: {error}; choose another with --state"
        ) from error
    assert connection is not None
    return connection


def remove_database(path: Path) -> None:
    """Deletes a database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _try_open(path: Path, schema: str, version: int) -> sqlite3.Connection | None:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16384")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            # All or nothing: half a schema, left by a crash, would be in the way for ever.
            connection.executescript(f"BEGIN; {schema}; PRAGMA user_version = {version:d}; COMMIT")
        elif found != version:
            connection.close()
            return None
    except sqlite3.OperationalError:
        connection.close()
        raise
    except sqlite3.DatabaseError:
        connection.close()
        return None
    return connection
