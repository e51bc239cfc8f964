"""The sizes of all objects of a folder from one listing, which costs less than a request for each."""

from __future__ import annotations

import sqlite3

from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_CACHE_KIB = 64 * 1024
_SCHEMA = "CREATE TABLE sizes (key TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID"


class ObjectSizes:
    """Keys and sizes in bytes, in a temporary file of SQLite, of which a bounded part is in memory."""

    def __init__(self, keys: FolderKeys) -> None:
        """Make an empty table for the objects of a folder."""
        self._keys = keys
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute(_SCHEMA)

    def close(self) -> None:
        """Delete the table."""
        self._connection.close()

    async def load(self, bucket: Bucket) -> None:
        """List the objects. Raises StoreError."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN")
        async for item in bucket.list(self._keys.objects):
            if self._keys.parse_object(item.key) is None:
                continue
            row = (self._keys.relative(item.key), item.size)
            cursor.execute("INSERT OR REPLACE INTO sizes VALUES (?, ?)", row)
        cursor.execute("COMMIT")

    def add(self, key: str, size: int) -> None:
        """Note an object that was written since."""
        self._connection.execute("INSERT OR REPLACE INTO sizes VALUES (?, ?)", (self._keys.relative(key), size))

    def get(self, key: str) -> int | None:
        """Return the size of an object, or None if it was not listed."""
        row = self._connection.execute("SELECT size FROM sizes WHERE key = ?", (self._keys.relative(key),)).fetchone()
        return row[0] if row is not None else None
