"""Which object has the block that a peer requests."""

from __future__ import annotations

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.block_table import BlockTable, table_reader
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.requests_in import matches


class RequestedObjects:
    """Looks requested blocks up in the state of a folder. Of very large files, only a table of the blocks is kept."""

    def __init__(self, state: FolderState, memory: SyncMemory, settings: SyncSettings) -> None:
        self._state = state
        self._tables = memory.large_entries
        self._work = memory.large_work
        self._least = settings.index_piece_size

    async def find(self, request: RequestReceived, by: DeviceID) -> tuple[str, Entry | None] | None:
        """Return the name of the object, and the entry unless it is very large; None where no stored block matches.

        Of a name with dissents, a request without the block's hash is for the version that the device is shown.
        Raises StateDamaged.
        """
        found = self._state.size_of(request.name)
        if found is None:
            return None
        sequence, size = found
        disputed = self._state.is_disputed(sequence)
        if request.hash or not disputed:
            current = await self._of_current(request, by, sequence, size)
            if current is not None or not disputed:
                return current
        row = self._state.disputed_row(name_key(request.name))
        if row is None:
            return None  # changed meanwhile
        for entry in row.entries.values() if request.hash else (row.shown(by),):
            if entry.stored is not None and matches(request, entry):
                return entry.stored.object_name, entry
        return None

    async def _of_current(
        self, request: RequestReceived, by: DeviceID, sequence: int, size: int
    ) -> tuple[str, Entry | None] | None:
        """Return what `find` returns, of the current version of the name alone."""
        if size <= self._least:
            entry = self._state.entry(request.name)
            if entry is None or entry.stored is None or not matches(request, entry):
                return None
            return entry.stored.object_name, entry
        table = await self._table(sequence, size, by)
        if table is None or not table.has(request.offset, request.size, request.hash):
            return None
        if table.name != request.name:
            raise self._state.damaged(f"it has {table.name!r} under another name")
        return (table.object_name, None) if table.object_name is not None else None

    async def _table(self, sequence: int, size: int, by: DeviceID) -> BlockTable | None:
        generation = self._state.generation
        key = (generation, sequence)
        table = self._tables.get(key)
        if table is not None:
            return table
        try:
            table = await self._work.run(by, size, table_reader(self._state.path, sequence))
        except StateDamaged as error:
            if self._state.generation is generation:
                raise self._state.damaged(str(error)) from error
            return None
        if table is not None and self._state.generation is generation:
            self._tables.put(key, table, table.memory_size)
        return table
