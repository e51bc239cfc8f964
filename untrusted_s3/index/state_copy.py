"""Copies of a state's file, and what two states differ in (index/state.py).

The functions use connections of their own, so they may run in threads beside the state's methods. They see what the
state has committed.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.database import is_damage

_DIFFERING: Final = """
SELECT theirs.sequence FROM other.files AS theirs LEFT JOIN files AS ours USING (name_hash)
WHERE ours.version IS NULL OR ours.version != theirs.version OR ours.file_info != theirs.file_info
    OR ours.content_hash IS NOT theirs.content_hash
    OR EXISTS (SELECT 1 FROM other.dissents WHERE dissents.sequence = theirs.sequence)
ORDER BY theirs.sequence
"""
_NAMES_WITHOUT: Final = """
SELECT ours.name_hash FROM files AS ours LEFT JOIN other.files AS theirs USING (name_hash)
WHERE theirs.sequence IS NULL
"""


def write_copy(state: Path, path: Path) -> int:
    """Write a state as one compact SQLite file and return its position. Raises sqlite3.Error."""
    with closing(sqlite3.connect(_read_only(state), uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    with closing(sqlite3.connect(path)) as copy:
        return int(copy.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()[0])


def differing(state: Path, other: Path) -> array[int]:
    """Return the sequence numbers in another state of those entries that a state does not have as they are there.

    They differ in their version, their file info, or the object with their data. The numbers rise. Those of names
    with dissents in the other state are among them. Raises StateDamaged or sqlite3.Error.
    """
    return array("q", _compared(state, other, _DIFFERING))


def names_without(state: Path, other: Path) -> list[bytes]:
    """Return the hashes of a state's names that another state lacks. Raises StateDamaged or sqlite3.Error."""
    return list(_compared(state, other, _NAMES_WITHOUT))


def _compared(state: Path, other: Path, query: str) -> Iterator[Any]:
    try:
        with closing(sqlite3.connect(_read_only(state), uri=True)) as connection:
            connection.execute("ATTACH ? AS other", (_read_only(other),))
            for row in connection.execute(query):
                yield row[0]
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise StateDamaged(f"the local state is damaged ({error}) and is made again from the store") from error


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"
