"""How many bytes of a folder's current versions are from each device (index/state.py)."""

from __future__ import annotations

from collections import Counter
from typing import Final

from untrusted_s3.index.database import Database

ENTRIES_AT_ONCE: Final = 2000
_ALL: Final = 2**63 - 1
_SUMS: Final = """
SELECT source, sum(size), max(sequence), count(*) FROM
(SELECT sequence, source, size FROM files WHERE sequence > ? ORDER BY sequence LIMIT ?) GROUP BY source
"""


class SourceBytes:
    """The bytes by the number of the device that an entry names as its source.

    They are not in the file, whose schema is that of checkpoints. They are counted when somebody asks for the first
    time, and kept up to date after that.
    """

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._bytes: Counter[int] = Counter()
        # Entries with sequence numbers above it are not counted yet. New entries have higher ones than all others.
        self._counted = 0
        self._changes: list[tuple[int, int]] = []  # of the transaction

    def count_some(self, entries: int = ENTRIES_AT_ONCE) -> bool:
        """Count so many entries that are not counted yet. Return whether there are more. Not in a transaction."""
        if self._counted == _ALL:
            return False
        found = 0
        for source, size, last, count in self._connection.execute(_SUMS, (self._counted, entries)).fetchall():
            if source is not None:
                self._bytes[source] += size
            self._counted = max(self._counted, last)
            found += count
        if found < entries:
            self._counted = _ALL
        return self._counted != _ALL

    def of(self, number: int) -> int:
        """Return the bytes of a device. The first call counts all entries, if `count_some` has not."""
        while self.count_some():
            pass
        return self._bytes[number]

    def changed(self, sequence: int, source: int | None, size: int) -> None:
        """Note that an entry comes, or goes if `size` is negative, if the transaction is committed."""
        if source is not None and sequence <= self._counted:
            self._changes.append((source, size))

    def committed(self) -> None:
        """Note that the transaction is committed."""
        for source, size in self._changes:
            self._bytes[source] += size
        self._changes.clear()

    def rolled_back(self) -> None:
        """Note that the transaction is rolled back."""
        self._changes.clear()
