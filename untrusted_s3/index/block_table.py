"""Stored files of very many blocks: where their blocks lie, in a fraction of the memory of the parsed entry."""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from bisect import bisect_left
from pathlib import Path

from untrusted_s3.accounts import ByteCache
from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.database import is_damage
from untrusted_s3.index.entry import DISSENT_COLUMNS, ENTRY_COLUMNS, Entry, StoredObject, read_row


class BlockTable:
    """The blocks of a stored file, 20 bytes for each.

    Attributes:
        name: The encrypted name.
        object_name: The name of the object; None if the entry has none.
    """

    def __init__(self, entry: Entry) -> None:
        self.name = entry.file_info.name
        self.object_name = entry.stored.object_name if entry.stored is not None else None
        self._stored = entry.stored
        blocks = entry.file_info.message.blocks
        self._offsets = array("q", (block.offset for block in blocks))
        self._sizes = array("i", (block.size for block in blocks))
        # Hashes that differ in each process. Nobody can find two tokens with the same one.
        self._tokens = array("q", (hash(block.hash) for block in blocks))

    @property
    def memory_size(self) -> int:
        """About how many bytes it takes in memory."""
        return 20 * len(self._offsets) + 512

    def has(self, offset: int, size: int, token: bytes) -> bool:
        """Return whether there is exactly this block. The token may be missing."""
        number = bisect_left(self._offsets, offset)
        if number == len(self._offsets) or (self._offsets[number], self._sizes[number]) != (offset, size):
            return False
        return not token or hash(token) == self._tokens[number]

    def part_end(self, offset: int) -> int:
        """Return where the last block ends that lies in the same part of the object as one at `offset`."""
        assert self._stored is not None
        return part_end(self._stored, self._offsets[-1] + self._sizes[-1], offset)


def part_end(stored: StoredObject, data_size: int, offset: int) -> int:
    """Return where the blocks end that lie in the same part of an object as one at `offset`; parts are whole blocks.

    `data_size` is the size of all blocks.
    """
    part_size = stored.part_size or stored.size
    return min((offset // part_size + 1) * part_size, data_size)


# Of all open states: by an object that each has for its file, the sequence number, and the number of the dissent.
BlockTables = ByteCache[tuple[object, int, int], BlockTable]


def read_large_entry(path: Path, sequence: int, number: int = 0) -> Entry | None:
    """Return what a state's file has under a sequence number: the current version, or a dissent by its number.

    Returns None where there is nothing. May run in a thread beside the state's methods. Raises StateDamaged.
    """
    query, values = (DISSENT_COLUMNS, (sequence, number)) if number else (ENTRY_COLUMNS, (sequence,))
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            row = connection.execute(query, values).fetchone()
        return read_row(row) if row is not None else None
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        raise StateDamaged(f"the local state is damaged ({error})") from error
    except (ValueError, TypeError) as error:
        raise StateDamaged(f"the local state is damaged: sequence {sequence} cannot be read") from error


def read_table(path: Path, sequence: int, number: int = 0) -> BlockTable | None:
    """Return a table of the blocks of what `read_large_entry` returns."""
    entry = read_large_entry(path, sequence, number)
    return BlockTable(entry) if entry is not None else None
