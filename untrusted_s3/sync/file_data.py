"""Brings the data of announced files into the store."""

from __future__ import annotations

from dataclasses import replace

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.content import CONTENT_HASH_SIZE
from untrusted_s3.index.entry import NAMED_ONLY, Entry
from untrusted_s3.index.pending import Pending
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import has_untrusted_blocks
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.sync.large_entries import LargeEntries
from untrusted_s3.sync.precedence import Precedence
from untrusted_s3.sync.sources import Sources


class FileData:
    """The data of one folder's files: whether they are there, and who gives them."""

    def __init__(
        self,
        state: FolderState,
        writer: ObjectWriter,
        sources: Sources,
        precedence: Precedence,
        large_entries: LargeEntries,
    ) -> None:
        self._state = state
        self._writer = writer
        self._sources = sources
        self._precedence = precedence
        self._large_entries = large_entries

    def is_there(self, entry: Pending) -> bool:
        """Return whether the folder has the data of an entry under its name.

        Data from an untrusted device may be anything. They are fetched again when a trusted device has the file.
        """
        return any(self._has_data(named.object_name, entry) for named in self._state.objects_of(entry.name_hash))

    async def bring(self, entry: Pending, file_info: FileInfo) -> Entry:
        """Return the entry for the log, after the data are in the store. Raises what `ObjectWriter.write` raises.

        Where only metadata changed, or the folder has this version, the data stay where they are. An untrusted device
        is asked when no trusted one announces the version, or when those that are still connected do not give it. A
        trusted device that has just gone is waited for until the next try.
        """
        stored = self._state.stored_objects(entry.name_hash) if self.is_there(entry) else ()
        for one in stored:
            if self._has_data(one.object_name, entry):
                return Entry(file_info, replace(one, seen=NAMED_ONLY), entry.device_id)
        return await self._write(entry, file_info, await self._current(file_info.name, entry.device_id))

    async def _write(self, entry: Pending, file_info: FileInfo, current: Entry | None) -> Entry:
        def superseded() -> bool:
            # The folder may have the data by now, through another gateway.
            return self._precedence.is_superseded(entry) or self.is_there(entry)

        # Its object is still there if this content was the folder's before: an older version that comes again, or a
        # name that was deleted and comes back, as when a directory is renamed and renamed back.
        comes_back = current is not None and current.file_info.message.deleted
        may_be_stored = comes_back or not self._state.wants_version(entry.name_hash, entry.vector)
        announcing = self._sources.announcing(entry)
        givers = self._sources.givers(announcing)
        failures: list[BlockUnavailable] = []
        for giver in givers:
            if failures:
                announcing = self._sources.announcing(entry)
                if givers[0] is None and self._sources.givers(announcing)[0] is not None:
                    break
            fetch = self._sources.fetcher(entry, file_info.name, giver, announcing)
            try:
                stored = await self._writer.write(
                    file_info,
                    fetch,
                    current,
                    superseded,
                    owner=giver or entry.device_id,
                    giver=giver,
                    condemned=self._state.condemned(entry.name_hash),
                    may_be_stored=may_be_stored,
                )
                return Entry(file_info, stored, giver or entry.device_id)
            except BlockUnavailable as error:
                failures.append(error)
        raise failures[0]

    def _has_data(self, object_name: str, entry: Pending) -> bool:
        trusted = self._sources.is_trusted(entry.device_id)
        has_same_data = object_name[:CONTENT_HASH_SIZE] == entry.content_hash
        return has_same_data and not (trusted and has_untrusted_blocks(object_name))

    async def _current(self, name: str, by: DeviceID) -> Entry | None:
        """Return what the folder has under a name, for a device that has announced something else."""
        found = self._state.size_of(name)
        if found is None:
            return None
        sequence, size = found
        if not self._large_entries.is_large(size):
            return self._state.version(sequence, 0, name)
        return await self._large_entries.entry(sequence, size, by)
