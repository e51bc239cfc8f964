"""A folder opened with its password: what it holds, now or at a time of its history."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, EntryMisplaced, FolderRemovalUnfinished, NoSuchFolder
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.index.history import load_as_of, load_newest, to_datetime, to_time_ms
from untrusted_s3.index.state import FolderState, FolderTotals
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_hash
from untrusted_s3.store.records import FolderRecord, read_folders, read_record
from untrusted_s3.vault.entry import DamagedEntry, Entry, Version, is_gone, open_entry
from untrusted_s3.vault.name_versions import NameVersions
from untrusted_s3.vault.names import Names, Presence
from untrusted_s3.vault.opener import Opener, harmless_path
from untrusted_s3.vault.versions import read_versions
from untrusted_s3.vault.winner import CONFLICT_MARK, conflict_paths

_MISFILED = "a checkpoint has it in another entry's place"


class Folder:
    """What a folder holds at one moment. It does not change while it is open.

    Attributes:
        bucket: The store.
        record: The folder's record.
        key: The folder's key.
        keys: The keys of the folder's objects in the bucket.
        state: The encrypted state.
    """

    def __init__(self, bucket: Bucket, record: FolderRecord, key: FolderKey, state: FolderState) -> None:
        self.bucket = bucket
        self.record = record
        self.key = key
        self.keys = FolderKeys.of(record.folder_id)
        self.state = state
        self._names: Names | None = None
        # The sequence numbers of entries that a checkpoint has under the hash of another name
        self._misfiled: set[int] = set()

    def close(self) -> None:
        """Free the memory and close the state."""
        if self._names is not None:
            self._names.close()
            self._names = None
        self.state.close()

    @property
    def folder_id(self) -> str:
        """The Syncthing folder ID."""
        return self.record.folder_id

    @property
    def time(self) -> datetime | None:
        """When the last change was written, by the clock of the gateway that wrote it; None before the first."""
        return to_datetime(self.state.time_ms) if self.state.position else None

    @property
    def totals(self) -> FolderTotals:
        """The numbers of files, directories (with symlinks) and deleted entries, and the bytes of encrypted data."""
        return self.state.totals

    @property
    def conflict_count(self) -> int:
        """The number of conflict copies: versions of files that are in conflict with the one that wins."""
        return self._all_names().count_copies() if self.state.disputed_count else 0

    def entry(self, path: str) -> Entry | DamagedEntry | None:
        """Return what has a path, also if it is deleted, or a conflict copy; None if nothing ever had.

        Lists nothing, but looks for a conflict copy in the list of all.
        """
        if not path or not _is_utf8(path):
            return None
        name = self.key.encrypt_name(path)
        try:
            versions = self.state.versions(name)
        except EntryMisplaced:
            return DamagedEntry(path, name, _MISFILED, deleted=False)
        if versions:
            return self._choose(versions).chosen
        if self.state.disputed_count and CONFLICT_MARK in path:
            found = self._all_names().copy(path)
            return self._copy(path, *found) if found is not None else None
        return None

    def entries(
        self,
        directory: str = "",
        *,
        deleted: bool = False,
        matching: Callable[[str], object] = bool,
        conflicts: bool = False,
        versions: bool = False,
    ) -> Iterator[Entry | DamagedEntry]:
        """Yield all entries below a directory whose path matches; the empty path is the whole folder.

        Where a name has several versions, this is the one that wins, and after it those that are damaged. With
        `conflicts`, conflict copies are there as well, if their own path or that of their file matches. With
        `versions`, all other versions that some device still has follow the one that wins (`Entry.is_other`).

        Entries that are announced as deleted or ignored are left out unless `deleted` is true or the announcement is
        not authentic; these are damaged entries. Each is decrypted when it is its turn. The order is by directory, then
        by name, as bytes of UTF-8: a directory comes before what is in it. For the whole folder, entries without a
        harmless path come last, whether they match or not.
        """
        if not _is_utf8(directory):
            return
        presence = Presence.GONE if deleted else Presence.OTHERS if versions else Presence.THERE
        for path, sequence, place in self._all_names().below(directory, presence, copies=conflicts):
            if place is not None:
                copy = self._copy(path, sequence, place)
                if matching(path) or matching(copy.real.name):
                    yield copy
            elif matching(path):
                yield from self._entries_at(sequence, deleted=deleted, versions=versions)
        if not directory:
            yield from self.unnamed(deleted=deleted)

    def children(
        self, directory: str = "", *, deleted: bool = False, conflicts: bool = False
    ) -> Iterator[Entry | DamagedEntry]:
        """Yield the entries directly in a directory, by name; with `conflicts`, conflict copies as well."""
        if not _is_utf8(directory):
            return
        presence = Presence.GONE if deleted else Presence.THERE
        for path, sequence, place in self._all_names().children(directory, presence, copies=conflicts):
            if place is not None:
                yield self._copy(path, sequence, place)
            else:
                yield from self._entries_at(sequence, deleted=deleted)

    def directories(self, directory: str = "", *, deleted: bool = False, conflicts: bool = False) -> Iterator[str]:
        """Yield the paths of the directories below one that have something in them."""
        if not _is_utf8(directory):
            return iter(())
        presence = Presence.GONE if deleted else Presence.THERE
        return self._all_names().directories(directory, presence, copies=conflicts)

    def unnamed(self, *, deleted: bool = False) -> Iterator[Entry | DamagedEntry]:
        """Yield the entries without a harmless path: their names do not decrypt, or would lead out of the folder."""
        for sequence in self._all_names().unnamed(Presence.GONE if deleted else Presence.THERE):
            yield from self._entries_at(sequence, deleted=deleted)

    def conflicts(self, matching: Callable[[str], object] = bool) -> Iterator[Entry]:
        """Yield the conflict copies whose own path or that of their file matches."""
        if not self.state.disputed_count:
            return
        for path, sequence, place in self._all_names().copies():
            copy = self._copy(path, sequence, place)
            if matching(path) or matching(copy.real.name):
                yield copy

    def other_versions(self, matching: Callable[[str], object] = bool) -> Iterator[Entry]:
        """Yield the versions that `entries` has only with `versions`, of the paths that match."""
        for row in self.state.disputed():
            for entry in self._at(row.sequence).others:
                if matching(entry.path):
                    yield entry

    async def versions(self, path: str) -> list[Version]:
        """Return all versions of a path within the history that the store keeps, oldest first.

        Reads the whole log. Raises DataError or StoreError.
        """
        found = read_versions(self.bucket, self.keys, self.key.encrypt_name(path))
        return [Version(since, self._open(entry), is_dissent) async for since, entry, is_dissent in found]

    async def has_data(self, encrypted_name: str) -> bool:
        """Return whether the store has data of any version of a file. Raises StoreError."""
        async for _ in self.bucket.list(self.keys.objects_of(encrypted_name)):
            return True
        return False

    def _entries_at(self, sequence: int, *, deleted: bool, versions: bool = False) -> Iterator[Entry | DamagedEntry]:
        found = self._at(sequence)
        if deleted or isinstance(found.chosen, DamagedEntry) or not found.chosen.deleted:
            yield found.chosen
        yield from found.damaged
        if versions:
            yield from found.others

    def _at(self, sequence: int) -> NameVersions:
        entries = self.state.versions_at(sequence)
        if sequence in self._misfiled:
            name = entries[0].file_info.name
            return NameVersions(DamagedEntry(harmless_path(self.key, name), name, _MISFILED, deleted=False))
        return self._choose(entries)

    def _choose(self, entries: Sequence[LogEntry]) -> NameVersions:
        return NameVersions.of([self._open(entry) for entry in entries])

    def _open(self, entry: LogEntry) -> Entry | DamagedEntry:
        return open_entry(entry, self.key, self.keys)

    def _copy(self, path: str, sequence: int, place: int) -> Entry:
        entry = self._open(self.state.versions_at(sequence)[place])
        assert isinstance(entry, Entry)  # it was one when the names were read
        return replace(entry, path=path, is_other=True)

    def _all_names(self) -> Names:
        if self._names is None:
            names = Names()
            copies: list[tuple[int, int, Entry]] = []
            names.add(self._read_names(copies))
            for sequence, place, entry in copies:
                names.add_copy(conflict_paths(entry.path, entry.real), sequence, place)
            self._names = names
        return self._names

    def _read_names(self, copies: list[tuple[int, int, Entry]]) -> Iterator[tuple[str | None, int, Presence]]:
        """Yield the rows of all entries. Add sequence number, place and entry of each conflict copy to the list."""
        for sequence, hashed, raw in self.state.named_file_infos():
            try:
                message = pb.FileInfo.FromString(raw)
            except DecodeError as error:
                raise DataError(f"sequence {sequence} of the state cannot be read: {error}") from error
            if hashed != bytes.fromhex(name_hash(message.name)):
                self._misfiled.add(sequence)
                yield None, sequence, Presence.THERE
                continue
            path = harmless_path(self.key, message.name)
            if self.state.is_disputed(sequence):
                found = self._at(sequence)
                copies += ((sequence, place, entry) for place, entry in found.conflicts)
                there = Presence.OTHERS if found.others else Presence.GONE
                yield path, sequence, there if found.is_gone else Presence.THERE
                continue
            # Anybody can write the outside of a file info: an entry is gone only if the encrypted part says so.
            gone = is_gone(message) and isinstance(self._open(LogEntry(FileInfo(raw, message), None)), Entry)
            yield path, sequence, Presence.GONE if gone else Presence.THERE


@asynccontextmanager
async def open_folder(
    bucket: Bucket, folder_id: str, password: str, *, as_of: datetime | None = None
) -> AsyncIterator[Folder]:
    """Open a folder as it is now, or as it was at `as_of` (with a time zone). Nothing is written to the store.

    Raises WrongPassword, NoSuchFolder, FolderRemovalUnfinished, UsageError if `as_of` is before the history, DataError
    if the log is damaged, or StoreError.
    """
    record = await find_record(bucket, folder_id)
    key = await _open_key(record, password)
    keys = FolderKeys.of(folder_id)
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        state = FolderState(Path(directory, "state.sqlite"))
        folder = Folder(bucket, record, key, state)
        try:
            if as_of is None:
                await load_newest(bucket, keys, state)
            else:
                await load_as_of(bucket, keys, state, to_time_ms(as_of))
            yield folder
        finally:
            folder.close()


async def open_entries(record: FolderRecord, password: str) -> Opener:
    """Return what opens single entries of a folder. Raises WrongPassword."""
    return Opener(await _open_key(record, password), record.folder_id)


async def _open_key(record: FolderRecord, password: str) -> FolderKey:
    key = await asyncio.to_thread(FolderKey.derive, password, record.folder_id)
    key.check_token(record.token)
    return key


async def find_record(bucket: Bucket, folder_id: str) -> FolderRecord:
    """Return the record of a folder. Raises NoSuchFolder, FolderRemovalUnfinished, DataError or StoreError."""
    record = await read_record(bucket, FolderKeys.of(folder_id).record, FolderRecord.from_json)
    if record is None:
        raise NoSuchFolder(
            f"there is no folder {folder_id!r} in the store, which has {name_folders(await read_folders(bucket))}"
        )
    if record.folder_id != folder_id:
        raise DataError(f"the record of the folder {folder_id!r} names another folder, {record.folder_id!r}")
    if record.removed:
        raise FolderRemovalUnfinished(folder_id)
    return record


def _is_utf8(path: str) -> bool:
    """Return whether a path is one that Syncthing can have: command lines may have other bytes, as surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_folders(folders: list[FolderRecord]) -> str:
    """Return the IDs of folders, for a message."""
    return ", ".join(repr(folder.folder_id) for folder in folders) or "none"
