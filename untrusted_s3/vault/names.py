"""The plain names of a folder. SQLite in memory needs a fraction of what Python objects would; they reach no disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

_SCHEMA = """
CREATE TABLE names (
    directory TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
CREATE TABLE unnamed (sequence INTEGER PRIMARY KEY, gone INTEGER NOT NULL);
"""


class Names:
    """Plain paths of entries and their sequence numbers.

    Methods with a parameter `gone` leave out what is gone (deleted) unless it is true. The order is by directory, then
    by name, as bytes of UTF-8: a directory comes before what is in it.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()

    def add(self, rows: Iterable[tuple[str | None, int, bool]]) -> None:
        """Add rows of path (None if there is no harmless one), sequence number, and whether the entry is gone."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN")
        for path, sequence, gone in rows:
            if path is None:
                cursor.execute("INSERT INTO unnamed VALUES (?, ?)", (sequence, gone))
            else:
                directory, _, name = path.rpartition("/")
                cursor.execute("INSERT INTO names VALUES (?, ?, ?, ?)", (directory, name, sequence, gone))
        cursor.execute("COMMIT")

    def unnamed(self, gone: bool) -> Iterator[int]:
        """Yield the sequence numbers of entries without a harmless path."""
        rows = self._connection.execute("SELECT sequence FROM unnamed WHERE gone <= ? ORDER BY sequence", (gone,))
        return (row[0] for row in rows)

    def children(self, directory: str, gone: bool) -> Iterator[tuple[str, int]]:
        """Yield paths and sequence numbers directly in a directory; the empty path is the folder itself."""
        return self._paths("WHERE gone <= ? AND directory = ?", gone, directory)

    def below(self, directory: str, gone: bool) -> Iterator[tuple[str, int]]:
        """Yield paths and sequence numbers in a directory and in those below it."""
        yield from self.children(directory, gone)
        yield from self._paths("WHERE gone <= ? AND directory >= ? AND directory < ?", gone, *_range_below(directory))

    def directories(self, directory: str, gone: bool) -> Iterator[str]:
        """Yield the paths of the directories below one that have something in them."""
        rows = self._connection.execute(
            "SELECT DISTINCT directory FROM names WHERE gone <= ? AND directory >= ? AND directory < ? ORDER BY 1",
            (gone, *_range_below(directory)),
        )
        return (row[0] for row in rows)

    def _paths(self, condition: str, *parameters: object) -> Iterator[tuple[str, int]]:
        query = f"SELECT directory, name, sequence FROM names {condition} ORDER BY directory, name"  # noqa: S608
        for directory, name, sequence in self._connection.execute(query, parameters):
            yield f"{directory}/{name}" if directory else name, sequence


def _range_below(directory: str) -> tuple[str, str | bytes]:
    """Return the first path below a directory, and the first after all of them."""
    if not directory:
        return "\x01", b""  # in SQLite, bytes come after all texts
    return directory + "/", directory + chr(ord("/") + 1)
