"""The objects that a folder's history names, with what the log says of each."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import Iterator
from typing import NamedTuple

from untrusted_s3.index.entry import Entry, StoredObject, read_checksums
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

_SCHEMA = """
CREATE TABLE objects (
    name_hash BLOB NOT NULL, object_name TEXT NOT NULL, size INTEGER NOT NULL, part_size INTEGER NOT NULL,
    part_crc32c BLOB NOT NULL, PRIMARY KEY (name_hash, object_name)
) WITHOUT ROWID
"""
_CACHE_KIB = 32 * 1024
_AT_ONCE = 1000


class NamedObject(NamedTuple):
    """An object, the hash of whose file's encrypted name is `name_hash`."""

    name_hash: bytes
    stored: StoredObject


class NamedObjects:
    """In a temporary file of SQLite, of which a bounded part is in memory."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(_SCHEMA)

    def close(self) -> None:
        """Delete them."""
        self._connection.close()

    async def add_state(self, state: FolderState) -> None:
        """Add what a state names. Others go on meanwhile."""
        for number, (_, key, _) in enumerate(state.sources()):
            for stored in state.stored_objects(key):
                self._add(key, stored)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def add_entry(self, entry: Entry) -> None:
        """Add what an entry names, and its dissents."""
        for version in entry.versions:
            if version.stored is not None:
                self._add(name_key(version.file_info.name), version.stored)

    def _add(self, key: bytes, stored: StoredObject) -> None:
        checksums = struct.pack(f">{len(stored.part_crc32c)}I", *stored.part_crc32c)
        self._connection.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
            (key, stored.object_name, stored.size, stored.part_size, checksums),
        )

    def totals(self) -> tuple[int, int]:
        """Return how many there are, and their bytes."""
        row = self._connection.execute("SELECT count(*), total(size) FROM objects").fetchone()
        return row[0], int(row[1])

    def __iter__(self) -> Iterator[NamedObject]:
        for key, name, size, part_size, checksums in self._connection.execute("SELECT * FROM objects"):
            yield NamedObject(key, StoredObject(name, size, part_size, read_checksums(checksums)))
