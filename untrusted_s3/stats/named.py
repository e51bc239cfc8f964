"""The objects of a folder that the store lists, beside those that its log names.

They are in a temporary file of SQLite, of which a bounded part is in memory. 64 bits stand for each object, so two of
many millions may rarely count as one.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Final

from untrusted_s3.index.entry import NamedObject
from untrusted_s3.stats.amounts import SIZE_CLASSES, Amount, Contents

_CACHE_KIB: Final = 64 * 1024
_SCHEMA: Final = """
PRAGMA journal_mode = OFF;
CREATE TABLE listed (digest INTEGER PRIMARY KEY, size INTEGER NOT NULL);
CREATE TABLE named (digest INTEGER PRIMARY KEY, live INTEGER NOT NULL);
"""
_CLASS: Final = " + ".join(f"(size > {limit})" for limit in SIZE_CLASSES)
_COUNTED: Final = (
    f"SELECT live, {_CLASS} AS class, count(*), sum(size)"  # noqa: S608
    " FROM listed LEFT JOIN named USING (digest) GROUP BY live, class"
)


class NamedObjects:
    """The listed and the named objects of one folder. For one thread at a time."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.executescript(_SCHEMA)
        self._connection.execute("BEGIN")

    def close(self) -> None:
        """Delete the file."""
        self._connection.close()

    def list(self, objects: Iterable[tuple[bytes, str, int]]) -> None:
        """Add objects that the store has, each with the hash of its name, its own name and its size."""
        rows = ((_digest(name_hash, object_name), size) for name_hash, object_name, size in objects)
        self._connection.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?)", rows)

    def name(self, objects: Iterable[NamedObject], *, live: bool) -> None:
        """Add objects that the log names. Those that were `live` once stay so."""
        rows = ((_digest(named.name_hash, named.object_name), live) for named in objects)
        self._connection.executemany("INSERT OR IGNORE INTO named VALUES (?, ?)", rows)

    def forget_names(self) -> None:
        """Forget what the log names."""
        self._connection.execute("DELETE FROM named")

    def count(self, contents: Contents, *, is_known: bool) -> None:
        """Add what is listed to `contents`. Without `is_known`, nobody can tell what the log names."""
        for live, number, objects, size in self._connection.execute(_COUNTED):
            amount = Amount(objects, size)
            contents.classes[number].add_all(amount)
            if not is_known:
                contents.unclear.add_all(amount)
            elif live is None:
                contents.garbage.add_all(amount)
            else:
                (contents.live if live else contents.history).add_all(amount)


def _digest(name_hash: bytes, object_name: str) -> int:
    hashed = hashlib.blake2b(name_hash + object_name.encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), signed=True)
