"""Which object has the block that a peer requests."""

from __future__ import annotations

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.large_entries import LargeEntries
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.requests_in import matches


class RequestedObjects:
    """Looks requested blocks up in the state of a folder. Of very large files, only a table of the blocks is kept."""

    def __init__(self, state: FolderState, memory: SyncMemory, settings: SyncSettings) -> None:
        self._state = state
        self._large = LargeEntries(state, memory, settings)

    async def find(self, request: RequestReceived, by: DeviceID) -> tuple[str, Entry | None] | None:
        """Return the name of the object, and the entry unless it is very large; None where no stored block matches.

        Of a name with dissents, a request without the block's hash is for the version that the device is shown.
        Raises StateDamaged.
        """
        found = self._state.size_of(request.name)
        if found is None:
            return None
        sequence, size = found
        sizes = {0: size}
        if self._state.is_disputed(sequence):
            sizes |= dict(self._state.dissent_sizes(sequence))
            if not request.hash:
                shown = self._state.shown(sequence, by)
                sizes = {shown: sizes[shown]}
        for number, size in sizes.items():
            stored = await self._of_version(request, by, sequence, number, size)
            if stored is not None:
                return stored
        return None

    async def _of_version(
        self, request: RequestReceived, by: DeviceID, sequence: int, number: int, size: int
    ) -> tuple[str, Entry | None] | None:
        """Return what `find` returns, of one version of the name."""
        name = request.name
        if not self._large.is_large(size):
            entry = self._state.version(sequence, number, name)
            if entry is None or entry.stored is None or not matches(request, entry):
                return None
            return entry.stored.object_name, entry
        table = await self._large.table(sequence, number, size, by)
        if table is None or not table.has(request.offset, request.size, request.hash):
            return None
        if table.name != name:
            raise self._state.damaged(f"it has {table.name!r} under another name")
        return (table.object_name, None) if table.object_name is not None else None
