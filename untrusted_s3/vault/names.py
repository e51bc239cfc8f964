"""The plain names of a folder. SQLite in memory needs a fraction of what Python objects would; they reach no disk."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable, Iterator

_SCHEMA = """
CREATE TABLE names (
    directory TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    presence INTEGER NOT NULL,
    place INTEGER,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
CREATE TABLE unnamed (sequence INTEGER PRIMARY KEY, presence INTEGER NOT NULL);
"""


class Presence(enum.IntEnum):
    """Whether a folder still has a name. One that asks for names of a presence gets those of lower ones too."""

    THERE = 0
    OTHERS = 1  # it is deleted, but a device still has another version
    GONE = 2


class Names:
    """Plain paths of entries and their sequence numbers, and those of conflict copies.

    The order is by directory, then by name, as bytes of UTF-8: a directory comes before what is in it.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Free the memory."""
        self._connection.close()

    def add(self, rows: Iterable[tuple[str | None, int, Presence]]) -> None:
        """Add rows of path (None if there is no harmless one), sequence number and presence."""
        cursor = self._connection.cursor()
        cursor.execute("BEGIN")
        for path, sequence, presence in rows:
            if path is None:
                cursor.execute("INSERT INTO unnamed VALUES (?, ?)", (sequence, presence))
            else:
                directory, _, name = path.rpartition("/")
                cursor.execute("INSERT INTO names VALUES (?, ?, ?, ?, NULL)", (directory, name, sequence, presence))
        cursor.execute("COMMIT")

    def add_copy(self, paths: Iterable[str], sequence: int, place: int) -> None:
        """Add a conflict copy under the first of some paths that no entry and no other copy has.

        It is the version with a place of the entry with a sequence number. All entries must be there already.
        """
        for path in paths:
            directory, _, name = path.rpartition("/")
            done = self._connection.execute(
                "INSERT INTO names VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (directory, name, sequence, Presence.THERE, place),
            )
            if done.rowcount:
                return

    def copies(self) -> Iterator[tuple[str, int, int]]:
        """Yield path, sequence number and place of all conflict copies, in order."""
        rows = self._paths("WHERE place IS NOT NULL")
        return ((path, sequence, place) for path, sequence, place in rows if place is not None)

    def copy(self, path: str) -> tuple[int, int] | None:
        """Return sequence number and place of the conflict copy with a path, or None if no copy has it."""
        directory, _, name = path.rpartition("/")
        found = self._connection.execute(
            "SELECT sequence, place FROM names WHERE directory = ? AND name = ? AND place IS NOT NULL",
            (directory, name),
        ).fetchone()
        return (found[0], found[1]) if found is not None else None

    def count_copies(self) -> int:
        """Return the number of conflict copies."""
        return int(self._connection.execute("SELECT count(*) FROM names WHERE place IS NOT NULL").fetchone()[0])

    def unnamed(self, presence: Presence) -> Iterator[int]:
        """Yield the sequence numbers of entries without a harmless path."""
        query = "SELECT sequence FROM unnamed WHERE presence <= ? ORDER BY sequence"
        return (row[0] for row in self._connection.execute(query, (presence,)))

    def children(
        self, directory: str, presence: Presence, *, copies: bool = False
    ) -> Iterator[tuple[str, int, int | None]]:
        """Yield path, sequence number and, of conflict copies, place of what is directly in a directory.

        The empty path is the folder itself.
        """
        return self._paths(f"{_where(copies)} AND directory = ?", presence, directory)

    def below(
        self, directory: str, presence: Presence, *, copies: bool = False
    ) -> Iterator[tuple[str, int, int | None]]:
        """Yield the same of what is in a directory and in those below it."""
        yield from self.children(directory, presence, copies=copies)
        condition = f"{_where(copies)} AND directory >= ? AND directory < ?"
        yield from self._paths(condition, presence, *_range_below(directory))

    def directories(self, directory: str, presence: Presence, *, copies: bool = False) -> Iterator[str]:
        """Yield the paths of the directories below one that have something in them."""
        condition = f"{_where(copies)} AND directory >= ? AND directory < ?"
        query = f"SELECT DISTINCT directory FROM names {condition} ORDER BY directory"  # noqa: S608
        return (row[0] for row in self._connection.execute(query, (presence, *_range_below(directory))))

    def _paths(self, condition: str, *parameters: object) -> Iterator[tuple[str, int, int | None]]:
        query = f"SELECT directory, name, sequence, place FROM names {condition} ORDER BY directory, name"  # noqa: S608
        for directory, name, sequence, place in self._connection.execute(query, parameters):
            yield f"{directory}/{name}" if directory else name, sequence, place


def _where(copies: bool) -> str:
    return "WHERE presence <= ?" if copies else "WHERE presence <= ? AND place IS NULL"


def _range_below(directory: str) -> tuple[str, str | bytes]:
    """Return the first path below a directory, and the first after all of them."""
    if not directory:
        return "\x01", b""  # in SQLite, bytes come after all texts
    return directory + "/", directory + chr(ord("/") + 1)
