"""Writes a folder to a directory as a native untrusted device has it: encrypted, without the password.

A receive-encrypted folder of Syncthing keeps each file under its encrypted name, with the blocks as received and the
encrypted file info behind them (v2.1.3 lib/model/sharedpullerstate.go, writeEncryptionTrailer). Directories and
symlinks are empty directories. The token of the password is in a file (lib/model/util.go, writeEncryptionToken).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from untrusted_s3.errors import (
    DataError,
    NoSuchKey,
    NotRestored,
    UsageError,
)
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.index.state import FolderState
from untrusted_s3.native_disk.token_file import MARKER, TOKEN_NAME, PasswordToken
from untrusted_s3.native_disk.trailer import native_trailer
from untrusted_s3.objects.checksums import PartChecksums
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.problem import Problem
from untrusted_s3.progress import FileProgress, Progress
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.restore.attempts import Attempts
from untrusted_s3.restore.descriptors import is_temporary
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.target import Target
from untrusted_s3.settings import ReadSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.threads import in_thread_to_the_end
from untrusted_s3.vault.concurrency import for_each

TOKEN_FILE: Final = f"{MARKER}/{TOKEN_NAME}"
_OWN_FILE: Final = f"{MARKER}/untrusted-s3-export.json"
_MODE: Final = 0o644


@dataclass(slots=True)
class ExportReport:
    """What was exported and what was not.

    Attributes:
        files: Files that were written.
        bytes: Their bytes.
        directories: Directories and symlinks, which are directories here.
        there: Files that were there already.
        removed: Files of an earlier export that the folder no longer holds.
        failed: What is not exported.
        not_tried: How many were not tried after the disk was full.
    """

    files: int = 0
    bytes: int = 0
    directories: int = 0
    there: int = 0
    removed: int = 0
    failed: list[Problem] = field(default_factory=list)
    not_tried: int = 0


class EncryptedCopy:
    """One run of an export. Another run into the same directory fetches only what is missing or has changed.

    Attributes:
        report: What was exported so far.
    """

    def __init__(
        self,
        bucket: Bucket,
        record: FolderRecord,
        state: FolderState,
        target: Target,
        progress: Progress,
        settings: ReadSettings,
    ) -> None:
        self.report = ExportReport()
        self._bucket = bucket
        self._record = record
        self._keys = FolderKeys.of(record.folder_id)
        self._state = state
        self._target = target
        self._progress = progress
        self._settings = settings
        self._attempts = Attempts(self.report, bucket, self._keys.record)
        # A quarter for each of four reads ahead, if all files are large
        self._read_size = min(settings.read_size, max(settings.memory // (4 * settings.concurrent_large_files), 1))
        self._large_files = asyncio.Semaphore(settings.concurrent_large_files)

    async def run(self) -> ExportReport:
        """Export the folder, and remove what an earlier export has written and the folder no longer holds.

        What is damaged, what the system refuses, and objects that the store refuses, are in the report and do not stop
        the rest. A full disk does. Raises UsageError if the directory has something else in it, and StoreError if the
        store fails or refuses everything.
        """
        self._claim()
        with contextlib.closing(self._state.named_file_infos()) as rows:
            await for_each((row[0] for row in rows), self._export, self._settings.concurrent_files)
        if not self._attempts.disk_full:
            await in_thread_to_the_end(self._remove_others)
        return self.report

    def _claim(self) -> None:
        """Mark the directory as an export of this folder."""
        own = json.dumps({"folder_id": self._record.folder_id}).encode()
        found = self._target.read(_OWN_FILE, len(own) + 1)
        if found is None and not self._target.is_empty():
            raise UsageError("the directory is not empty, and not from an earlier export: choose another one")
        if found is not None and found != own:
            raise UsageError("the directory has an export of another folder: choose another one")
        token = PasswordToken(self._record.folder_id, self._record.token).to_json()
        text = json.dumps(token, ensure_ascii=False, separators=(",", ":")) + "\n"
        for path, content in ((_OWN_FILE, own), (TOKEN_FILE, text.encode())):
            self._write(path, content, Metadata(_MODE))

    async def _export(self, sequence: int) -> None:
        if self._attempts.skips():
            return
        try:
            entry = self._state.entry_at(sequence)
        except DataError as error:
            self.report.failed.append(Problem(f"sequence number {sequence}", str(error)))
            return
        message = entry.file_info.message
        if message.deleted or message.invalid:
            return
        async with self._attempts.trying(entry.file_info.name):
            if entry.stored is None:
                self._target.make_directory(entry.file_info.name)
                self.report.directories += 1
            else:
                await self._export_file(entry, entry.stored)

    async def _export_file(self, entry: Entry, stored: StoredObject) -> None:
        counted = self._progress.begin(entry.file_info.message.size)
        try:
            if await in_thread_to_the_end(self._is_there, entry):
                self.report.there += 1
                return
            if stored.size <= self._settings.small_read_size:
                await self._write_small(entry, stored)
            else:
                async with self._large_files:
                    await self._write_large(entry, stored, counted)
            self._attempts.note_read()
            self.report.files += 1
            self.report.bytes += entry.file_info.message.size
        finally:
            counted.end()

    def _is_there(self, entry: Entry) -> bool:
        """Whether a file of the right size and with this file info is there; its blocks were checked when written."""
        trailer = native_trailer(entry.file_info)
        status = self._target.status(entry.file_info.name)
        if status is None or not stat.S_ISREG(status.st_mode):
            return False
        size = entry.file_info.message.size
        if status.st_size != size + len(trailer):
            return False
        return self._target.read(entry.file_info.name, len(trailer), size) == trailer

    async def _write_small(self, entry: Entry, stored: StoredObject) -> None:
        data = await self._get(self._key(entry, stored), 0, stored.size)
        content = self._checked(entry, stored, data)
        await in_thread_to_the_end(self._write, entry.file_info.name, content, _metadata(entry))

    def _checked(self, entry: Entry, stored: StoredObject, data: bytes) -> bytes:
        """Check an object and return what the file holds: the object may have the trailer of an older file info."""
        PartChecksums(stored).add(data)
        size = entry.file_info.message.size
        check_trailer(data[size:], entry.file_info)
        return data[:size] + native_trailer(entry.file_info)

    async def _write_large(self, entry: Entry, stored: StoredObject, counted: FileProgress) -> None:
        size = entry.file_info.message.size
        checksums = PartChecksums(stored)
        trailer, offset = bytearray(), 0
        with self._target.new_file(entry.file_info.name, _metadata(entry), overwrite=True) as file:
            async with contextlib.aclosing(read_ahead(self._reads(entry, stored), self._settings.read_ahead)) as pieces:
                async for piece in pieces:
                    checksums.add(piece)
                    blocks = piece[: max(size - offset, 0)]
                    trailer += piece[len(blocks) :]
                    await in_thread_to_the_end(file.write, offset, blocks)
                    counted.add(len(blocks))
                    offset += len(piece)
            check_trailer(bytes(trailer), entry.file_info)
            current = native_trailer(entry.file_info)
            await in_thread_to_the_end(file.write, size, current)
            await in_thread_to_the_end(file.finish, size + len(current))

    def _reads(self, entry: Entry, stored: StoredObject) -> Iterator[Coroutine[Any, Any, bytes]]:
        key = self._key(entry, stored)
        for start in range(0, stored.size, self._read_size):
            yield self._get(key, start, min(self._read_size, stored.size - start))

    def _key(self, entry: Entry, stored: StoredObject) -> str:
        return self._keys.object(entry.file_info.name, stored.object_name)

    async def _get(self, key: str, start: int, size: int) -> bytes:
        try:
            return await self._bucket.get(key, start, size)
        except NoSuchKey as error:
            raise DataError("the object with its data is missing") from error

    def _write(self, path: str, content: bytes, metadata: Metadata) -> None:
        with self._target.new_file(path, metadata, overwrite=True) as file:
            file.write(0, content)
            file.finish(len(content))

    def _remove_others(self) -> None:
        """Remove what is not of the folder's present state."""
        for path, is_directory in self._target.walk_up():
            if path.split("/")[0] == MARKER:
                continue
            try:
                entry = self._state.entry(path)
                message = entry.file_info.message if entry is not None else None
                if message is not None and not message.deleted and not message.invalid:
                    continue
                if is_directory:
                    self._target.remove_empty_directory(path)
                else:
                    self._target.remove_file(path)
                    self.report.removed += not is_temporary(path)
            except (NotRestored, DataError) as error:
                self.report.failed.append(Problem(path, str(error)))


def _metadata(entry: Entry) -> Metadata:
    message = entry.file_info.message
    return Metadata(_MODE, message.modified_s * 10**9 + message.modified_ns)
