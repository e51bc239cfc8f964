"""Brings the directory of a receive-encrypted folder into a store: its files as they are, with no device connected.

Each file's object is written before the log names it, as a gateway does. So the import may end at any time, also beside
running gateways, and another run goes on. Directories, symlinks and deletions have no file info on the disk: they come
with the index of the first device that connects.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from untrusted_s3.accounts import Account
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import total
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable, DataError, FolderRemovalUnfinished, UsageError
from untrusted_s3.index.entry import KIND_FILE, Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.row import VersionKey
from untrusted_s3.index.state import FolderState
from untrusted_s3.native_disk.encrypted_file import EncryptedFile, NotImportedError
from untrusted_s3.native_disk.token_file import PasswordToken
from untrusted_s3.native_disk.walk import Found, Kind, walk
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.problem import Problem
from untrusted_s3.progress import Progress
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.store.records import FolderRecord, create_folder, open_store
from untrusted_s3.threads import in_thread_to_the_end
from untrusted_s3.vault.concurrency import for_each

_OWNER = "import"


@dataclass(slots=True)
class ImportReport:
    """What was imported and what was not.

    Attributes:
        files: Files that were written to the store, or found there, and are in the log now.
        bytes: Their bytes.
        there: Files that the folder had in the store already.
        older: Files that are older than what the folder has in the store.
        directories: Directories and symlinks, which have no file info on the disk.
        unfinished: Files that Syncthing had not received as a whole.
        refused: What is not imported, and why.
    """

    files: int = 0
    bytes: int = 0
    there: int = 0
    older: int = 0
    directories: int = 0
    unfinished: int = 0
    refused: list[Problem] = field(default_factory=list)


async def open_folder(bucket: Bucket, token: PasswordToken) -> FolderRecord:
    """Return the record of the folder with a token, which is created if the store does not have it.

    Raises UsageError if the store has the folder with another password. Raises DataError or StoreError.
    """
    await open_store(bucket, upgrade=True)
    record = await create_folder(bucket, FolderRecord(token.folder_id, "", token.token))
    if record.removed:
        raise FolderRemovalUnfinished(token.folder_id)
    if record.folder_id != token.folder_id:
        raise DataError(f"{FolderKeys.of(token.folder_id).record} belongs to another folder")
    if record.token != token.token:
        raise UsageError(
            f"the store has the folder {token.folder_id!r} with another encryption password: choose another store or"
            " prefix, or remove the folder from this one"
        )
    return record


def measured(directory: Path, marker: str) -> Progress:
    """Return how much there is to import: the encrypted files in a folder's directory, and their bytes."""
    progress = Progress()
    for found in walk(directory, marker):
        if found.kind is Kind.FILE:
            progress.total_files += 1
            progress.total_bytes += found.size
    return progress


class Import:
    """One run of an import.

    Attributes:
        report: What was imported so far.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        log: FolderLog,
        directory: Path,
        marker: str,
        progress: Progress,
        settings: Settings,
        memory: int,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Make an import of the directory with a marker into a folder. `log` is loaded.

        `memory` is for bytes that are on their way. `clock` gives seconds, by default those of the event loop.
        """
        self.report = ImportReport()
        self._log = log
        self._root = directory
        self._marker = marker
        self._progress = progress
        self._settings = settings
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._writer = ObjectWriter(
            bucket,
            keys,
            Account(memory),
            UploadLimits.of(settings.objects),
            Counters(),
            settings.objects,
            is_candidate=log.garbage.candidates.has,
            clock=log.garbage.clock,
        )
        self._large_files = asyncio.Semaphore(settings.reading.concurrent_large_files)
        self._appending = asyncio.Lock()
        self._entries: list[Entry] = []
        self._entries_size = 0
        self._appended = 0.0

    @property
    def _state(self) -> FolderState:
        return self._log.state

    async def run(self) -> ImportReport:
        """Import all files.

        What is refused is in the report and does not stop the rest. Raises OSError if the directory cannot be opened,
        DataError if the log is damaged, and StoreError.
        """
        self._appended = self._clock()
        await self._log.garbage.candidates.look()
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:

            async def work(found: Found) -> None:
                await self._take(directory, found)

            await for_each(walk(self._root, self._marker), work, self._settings.reading.concurrent_files)
        finally:
            os.close(directory)
        await self._append()
        return self.report

    async def _take(self, directory: int, found: Found) -> None:
        if found.kind is Kind.STRANGE:
            self.report.refused.append(Problem(found.path, found.reason))
        elif found.kind is Kind.TEMPORARY:
            self.report.unfinished += 1
        elif found.kind is Kind.DIRECTORY:
            self.report.directories += 1
        else:
            counted = self._progress.begin(found.size)
            try:
                await self._import(directory, found.path)
            except NotImportedError as error:
                self.report.refused.append(Problem(found.path, str(error)))
            except OSError as error:
                self.report.refused.append(Problem(found.path, f"it cannot be read: {error.strerror}"))
            except (BlockUnavailable, DataError) as error:
                self.report.refused.append(Problem(found.path, str(error)))
            finally:
                counted.end()
            await self._append_where_due()

    async def _import(self, directory: int, path: str) -> None:
        with await in_thread_to_the_end(EncryptedFile, directory, path) as file:
            info = file.file_info
            if not self._is_wanted(info):
                return
            if self._writer.is_large(info.message.size):
                async with self._large_files:
                    entry = await self._write(file)
            else:
                entry = await self._write(file)
        self._entries.append(entry)
        self._entries_size += entry.raw_size
        self.report.files += 1
        self.report.bytes += info.message.size

    async def _write(self, file: EncryptedFile) -> Entry:
        info = file.file_info
        stored = await self._writer.write(
            info,
            file.fetch_block,
            self._state.entry(info.name),
            owner=_OWNER,
            condemned=self._state.condemned(name_key(info.name)),
        )
        return Entry(info, stored)

    def _is_wanted(self, info: FileInfo) -> bool:
        """Return whether the folder lacks a version, and count one that it has."""
        key = name_key(info.name)
        current = self._state.current(key)
        version = VersionKey(total(info.message.version), KIND_FILE, content_hash(info))
        claims = self._state.disputed_claims(key)
        if (current is not None and version == current.key) or (claims is not None and version in claims.versions):
            self.report.there += 1
            return False
        if current is not None and not current.is_older_than(info.message.version):
            self.report.older += 1
            return False
        return True

    async def _append_where_due(self) -> None:
        """Append what has come, if that is a whole segment, or if some time has passed."""
        log = self._settings.log
        is_full = len(self._entries) >= log.segment_entries or self._entries_size >= log.segment_size
        is_late = self._entries and self._clock() - self._appended >= log.segment_pace
        if (is_full or is_late) and not self._appending.locked():
            await self._append()

    async def _append(self) -> None:
        async with self._appending:
            entries, self._entries, self._entries_size = self._entries, [], 0
            self._appended = self._clock()
            for segment in _segments(entries, self._settings.log):
                await self._log.append(segment)
                await self._log.checkpoint_where_due()


def _segments(entries: Sequence[Entry], settings: LogSettings) -> Iterator[Sequence[Entry]]:
    """Split entries into as many as one segment of the log holds."""
    start = size = 0
    for number, entry in enumerate(entries, 1):
        size += entry.raw_size
        if number - start >= settings.segment_entries or size >= settings.segment_size:
            yield entries[start:number]
            start, size = number, 0
    if start < len(entries):
        yield entries[start:]
