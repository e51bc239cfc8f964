"""Writes entries of a folder to a local directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Iterable

from untrusted_s3.errors import (
    NotRestored,
    PathTaken,
)
from untrusted_s3.problem import Problem
from untrusted_s3.progress import FileProgress, Progress
from untrusted_s3.restore.attempts import Attempts
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.new_file import NewFile
from untrusted_s3.restore.report import Outcome, RestoreOptions, RestoreReport
from untrusted_s3.restore.target import Target
from untrusted_s3.threads import GatheredCalls, in_thread_to_the_end
from untrusted_s3.vault.concurrency import for_each
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.reading import BlockReader

# Nanoseconds: NTFS, network file systems, exFAT, ext3 and HFS+, FAT
_COARSE_RESOLUTIONS = (100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, 2_000_000_000)


class Restoration:
    """One run. Another run into the same target fetches only what this one has not finished.

    Attributes:
        report: What was restored so far.
    """

    def __init__(
        self,
        reader: BlockReader,
        target: Target,
        options: RestoreOptions,
        progress: Progress,
        on_outcome: Callable[[Entry, Outcome], None] = lambda entry, outcome: None,
    ) -> None:
        """Make a run. `on_outcome` is called for each file and symlink that is restored or there already."""
        self.report = RestoreReport()
        self._reader = reader
        self._settings = reader.settings
        self._target = target
        self._options = options
        self._progress = progress
        self._on_outcome = on_outcome
        self._directories: list[tuple[str, Metadata]] = []
        self._symlinks: list[Entry] = []
        folder = reader.folder
        self._attempts = Attempts(self.report, folder.bucket, folder.keys.record, self._note_taken)
        self._small_writes = GatheredCalls()
        self._large_files = asyncio.Semaphore(self._settings.concurrent_large_files)

    async def run(self, entries: Iterable[Entry | DamagedEntry]) -> RestoreReport:
        """Restore entries; each directory comes before what is in it.

        Files are restored first, many at once; then symlinks, so that no file is written through one; then the metadata
        of directories, from the deepest up. What is damaged, what the system refuses, and objects that the store
        refuses or fails to give, are in the report and do not stop the rest. A full disk does: nothing is tried after
        it. Raises StoreError if the store fails or refuses everything.
        """
        await for_each(entries, self._restore, self._settings.concurrent_files)
        for entry in self._symlinks:
            if not self._attempts.skips():
                self._restore_symlink(entry)
            await asyncio.sleep(0)
        for path, metadata in sorted(self._directories, key=lambda item: item[0].count("/"), reverse=True):
            self._complete_directory(path, metadata)
            await asyncio.sleep(0)
        return self.report

    async def _restore(self, entry: Entry | DamagedEntry) -> None:
        if self._attempts.skips():
            return
        if isinstance(entry, DamagedEntry):
            self.report.failed.append(Problem(entry.path or entry.encrypted_name, entry.reason))
        elif entry.kind is Kind.FILE:
            await self._restore_file(entry)
        elif entry.kind is Kind.DIRECTORY:
            self._restore_directory(entry)
        else:
            self._symlinks.append(entry)

    async def _restore_file(self, entry: Entry) -> None:
        counted = self._progress.begin(entry.encrypted.message.size)
        async with self._attempts.trying(entry.path):
            if not self._is_there(entry):
                if not self._options.dry_run:
                    await self._write_file(entry, counted)
                    self._attempts.note_read()
                self.report.files += 1
                self.report.bytes += entry.size
                self._on_outcome(entry, Outcome.RESTORED)
        counted.end()

    async def _write_file(self, entry: Entry, counted: FileProgress) -> None:
        if entry.size <= self._settings.small_read_size:
            refused = await self._small_writes.run(self._write_whole, entry, await self._reader.read(entry))
        else:
            async with self._large_files:
                refused = await self._write_blocks(entry, counted)
        self._note_refused(entry.path, refused)

    def _write_whole(self, entry: Entry, data: bytes) -> list[str]:
        with self._new_file(entry) as file:
            file.write(0, data)
            return file.finish(len(data))

    async def _write_blocks(self, entry: Entry, counted: FileProgress) -> list[str]:
        with self._new_file(entry) as file:
            async with contextlib.aclosing(self._reader.blocks(entry)) as blocks:
                async for block in blocks:
                    await in_thread_to_the_end(file.write, block.offset, block.data)
                    counted.add(len(block.data))
            return await in_thread_to_the_end(file.finish, entry.size)

    def _new_file(self, entry: Entry) -> NewFile:
        return self._target.new_file(entry.path, self._metadata(entry), overwrite=self._may_overwrite(entry))

    def _restore_directory(self, entry: Entry) -> None:
        metadata = self._metadata(entry)
        try:
            if not self._options.dry_run:
                self._target.make_directory(entry.path, 0o777 if metadata.mode is None else 0o700)
                self._directories.append((entry.path, metadata))
            self.report.directories += 1
        except NotRestored as error:
            self._attempts.fail(entry.path, error)

    def _complete_directory(self, path: str, metadata: Metadata) -> None:
        try:
            self._note_refused(path, self._target.set_metadata(path, metadata))
        except NotRestored as error:
            self._attempts.fail(path, error)

    def _restore_symlink(self, entry: Entry) -> None:
        points_to, metadata, overwrite = entry.real.symlink_target, self._metadata(entry), self._options.overwrite
        try:
            if not self._is_there(entry):
                if not self._options.dry_run:
                    refused = self._target.make_symlink(entry.path, points_to, metadata, overwrite=overwrite)
                    self._note_refused(entry.path, refused)
                self.report.symlinks += 1
                self._on_outcome(entry, Outcome.RESTORED)
        except NotRestored as error:
            self._attempts.fail(entry.path, error)

    def _is_there(self, entry: Entry) -> bool:
        """Return whether a file of equal size and time, or an equal symlink, is there; if so, count it.

        Raises PathTaken if something else is there that may not be replaced.
        """
        status = self._target.status(entry.path)
        if status is None:
            return False
        if self._is_equal(entry, status):
            if entry.kind is Kind.FILE and self._options.overwrite and not self._options.dry_run:
                self._renew_metadata(entry)
            self.report.there += 1
            self._on_outcome(entry, Outcome.THERE)
            return True
        if stat.S_ISDIR(status.st_mode):
            raise NotRestored("a directory is in its place")
        if not self._may_overwrite(entry):
            if entry.conflict_of is not None:
                raise NotRestored("something else is there, and a conflict copy replaces nothing")
            raise PathTaken
        return False

    def _may_overwrite(self, entry: Entry) -> bool:
        return self._options.overwrite and entry.conflict_of is None

    def _renew_metadata(self, entry: Entry) -> None:
        try:
            refused = self._target.set_metadata(entry.path, self._metadata(entry))
        except NotRestored as error:  # the content is right even if the file may not be opened, for example
            refused = [f"metadata: {error}"]
        self._note_refused(entry.path, refused)

    def _is_equal(self, entry: Entry, status: os.stat_result) -> bool:
        if entry.kind is Kind.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and self._target.link_target(entry.path) == entry.real.symlink_target
        same_size = stat.S_ISREG(status.st_mode) and status.st_size == entry.size
        return same_size and is_same_time(status.st_mtime_ns, entry.modified_ns)

    def _metadata(self, entry: Entry) -> Metadata:
        options = self._options
        return Metadata.of(
            entry, owner=options.owner, xattrs=options.xattrs, privileged_xattrs=options.privileged_xattrs
        )

    def _note_taken(self, path: str, error: Exception) -> None:
        if isinstance(error, PathTaken):
            self.report.taken.append(path)

    def _note_refused(self, path: str, refused: list[str]) -> None:
        self.report.incomplete += (Problem(path, what) for what in refused)


def is_same_time(on_disk: int, wanted: int) -> bool:
    """Return whether a file system that was given the time `wanted` may have made `on_disk` of it, in nanoseconds.

    That is so if `on_disk` is a multiple of a resolution that file systems have, and the times differ by less.
    """
    difference = abs(on_disk - wanted)
    return difference == 0 or any(
        difference < resolution and on_disk % resolution == 0 for resolution in _COARSE_RESOLUTIONS
    )
