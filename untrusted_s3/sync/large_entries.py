"""Entries of a folder's state whose file infos are very large: read in a thread, in the turn of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.block_table import BlockTable, read_large_entry, read_table
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.memory import SyncMemory

_Result = TypeVar("_Result")


class LargeEntries:
    """Reads the large entries of one folder's state. Tables of their blocks are kept, as far as there is memory.

    `sequence` is the sequence number of a name, `number` that of a dissent, 0 for the current version, `size` the bytes
    of the file info, and `by` the device for which it is read. The state may change meanwhile: methods return None
    where nothing is left. They raise StateDamaged.
    """

    def __init__(self, state: FolderState, memory: SyncMemory, settings: SyncSettings) -> None:
        self._state = state
        self._tables = memory.large_entries
        self._work = memory.large_work
        self._least = settings.index_piece_size

    def is_large(self, size: int) -> bool:
        """Return whether a file info of so many bytes is to be read here."""
        return size > self._least

    async def entry(self, sequence: int, size: int, by: DeviceID) -> Entry | None:
        """Return the current version of a name."""
        return await self._read(size, by, read_large_entry, sequence)

    async def table(self, sequence: int, number: int, size: int, by: DeviceID) -> BlockTable | None:
        """Return the table of the blocks of a version."""
        generation = self._state.generation
        key = (generation, sequence, number)
        table = self._tables.get(key)
        if table is None:
            table = await self._read(size, by, read_table, sequence, number)
            if table is not None and self._state.generation is generation:
                self._tables.put(key, table, table.memory_size)
        return table

    async def _read(
        self, size: int, by: DeviceID, read: Callable[..., _Result | None], *numbers: int
    ) -> _Result | None:
        generation = self._state.generation
        path: Path = self._state.path
        try:
            return await self._work.run(by, size, read, path, *numbers)
        except StateDamaged as error:
            if self._state.generation is not generation:
                return None  # the file was replaced while it was read
            raise self._state.damaged(str(error)) from error
