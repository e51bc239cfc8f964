"""Which object has the block that a peer requests."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.index.block_table import part_end
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.large_entries import LargeEntries
from untrusted_s3.sync.memory import SyncMemory


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Where the store has a block.

    Attributes:
        object_name: The name of its object.
        part_end: Where the last block ends that lies in the same part of the object.
        entry: What names the object; None if that is very large.
    """

    object_name: str
    part_end: int
    entry: Entry | None


def matches(request: RequestReceived, entry: Entry) -> bool:
    """Return whether the request is for exactly one stored block of this entry.

    The hash may be missing (Syncthing before 1.28.1); else it must be the block's token.
    """
    message = entry.file_info.message
    if entry.stored is None or message.name != request.name:
        return False
    blocks = message.blocks
    number = bisect.bisect_left(blocks, request.offset, key=lambda block: block.offset)
    if number == len(blocks) or blocks[number].offset != request.offset or blocks[number].size != request.size:
        return False
    return not request.hash or request.hash == blocks[number].hash


class RequestedObjects:
    """Looks requested blocks up in the state of a folder. Of very large files, only a table of the blocks is kept."""

    def __init__(self, state: FolderState, memory: SyncMemory, settings: SyncSettings) -> None:
        self._state = state
        self._large = LargeEntries(state, memory, settings)

    async def find(self, request: RequestReceived, by: DeviceID) -> StoredBlock | None:
        """Return where the store has a requested block; None where no stored block matches.

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
    ) -> StoredBlock | None:
        """Return what `find` returns, of one version of the name."""
        name = request.name
        if not self._large.is_large(size):
            entry = self._state.version(sequence, number, name)
            if entry is None or entry.stored is None or not matches(request, entry):
                return None
            last = entry.file_info.message.blocks[-1]
            end = part_end(entry.stored, last.offset + last.size, request.offset)
            return StoredBlock(entry.stored.object_name, end, entry)
        table = await self._large.table(sequence, number, size, by)
        if table is None or not table.has(request.offset, request.size, request.hash):
            return None
        if table.name != name:
            raise self._state.damaged(f"it has {table.name!r} under another name")
        if table.object_name is None:
            return None
        return StoredBlock(table.object_name, table.part_end(request.offset), None)
