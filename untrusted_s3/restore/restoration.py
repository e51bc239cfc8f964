"""A folder, or a part of it, written to a local directory."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from untrusted_s3 import limits
from untrusted_s3.errors import DataError, NotRestored
from untrusted_s3.problem import Problem
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.target import NewFile, Target
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.progress import FileProgress, Progress
from untrusted_s3.vault.reading import BlockReader

Result = TypeVar("Result")


class Outcome(enum.StrEnum):
    """What became of a file or symlink, or would in a dry run."""

    RESTORED = "restored"
    THERE = "there already"


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """Whether to replace files that differ, and what to set beside permissions and times. In a dry run nothing is
    written or fetched."""

    overwrite: bool = False
    owner: bool = False
    xattrs: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class RestoreReport:
    """What was restored, in numbers, and what was not. `bytes` are of files' contents that were written; `there` counts
    files and symlinks that were there already. `failed` is not restored; of what is in `incomplete`, some metadata."""

    files: int = 0
    directories: int = 0
    symlinks: int = 0
    bytes: int = 0
    there: int = 0
    failed: list[Problem] = field(default_factory=list)
    incomplete: list[Problem] = field(default_factory=list)


class Restoration:
    """One run. A second one into the same target fetches only what the first has not finished."""

    def __init__(
        self,
        reader: BlockReader,
        target: Target,
        settings: RestoreSettings,
        progress: Progress,
        on_outcome: Callable[[Entry, Outcome], None] = lambda entry, outcome: None,
    ) -> None:
        self.report = RestoreReport()
        self._reader = reader
        self._target = target
        self._settings = settings
        self._progress = progress
        self._on_outcome = on_outcome
        self._directories: list[tuple[str, Metadata]] = []
        self._symlinks: list[Entry] = []
        self._large_files = asyncio.Semaphore(limits.CONCURRENT_LARGE_FILES_RESTORED)

    async def run(self, entries: Iterable[Entry | DamagedEntry]) -> RestoreReport:
        """Restores entries, of which each directory comes before what is in it.

        Files first, many at a time; then symlinks, so that nothing can go through them; then the metadata of
        directories, from the deepest up. What is damaged, or what the system refuses, is in the report and does not
        stop the rest. Raises StoreError where the store cannot be reached or refuses.
        """
        waiting = iter(entries)
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(limits.CONCURRENT_FILES_RESTORED):
                    tasks.create_task(self._work(waiting))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        for entry in self._symlinks:
            self._restore_symlink(entry)
            await asyncio.sleep(0)
        for path, metadata in sorted(self._directories, key=lambda item: item[0].count("/"), reverse=True):
            self._complete_directory(path, metadata)
            await asyncio.sleep(0)
        return self.report

    async def _work(self, entries: Iterator[Entry | DamagedEntry]) -> None:
        for entry in entries:
            if isinstance(entry, DamagedEntry):
                self._fail(entry.path or entry.encrypted_name, entry.reason)
            elif entry.kind is Kind.FILE:
                await self._restore_file(entry)
            elif entry.kind is Kind.DIRECTORY:
                self._restore_directory(entry)
            else:
                self._symlinks.append(entry)
            await asyncio.sleep(0)  # much may be there already, and then nothing else would get its turn

    async def _restore_file(self, entry: Entry) -> None:
        counted = self._progress.begin(entry.encrypted.message.size)
        try:
            if not self._is_there(entry):
                if not self._settings.dry_run:
                    await self._write_file(entry, counted)
                self.report.files += 1
                self.report.bytes += entry.size
                self._on_outcome(entry, Outcome.RESTORED)
        except (NotRestored, DataError) as error:
            self._fail(entry.path, str(error))
        counted.end()

    async def _write_file(self, entry: Entry, counted: FileProgress) -> None:
        if entry.size <= limits.SMALL_READ_SIZE:
            refused = await _in_thread(self._write_whole, entry, await self._reader.read(entry))
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
                    await _in_thread(file.write, block.offset, block.data)
                    counted.add(len(block.data))
            return await _in_thread(file.finish, entry.size)

    def _new_file(self, entry: Entry) -> NewFile:
        return self._target.new_file(entry.path, self._metadata(entry), overwrite=self._settings.overwrite)

    def _restore_directory(self, entry: Entry) -> None:
        metadata = self._metadata(entry)
        try:
            if not self._settings.dry_run:
                self._target.make_directory(entry.path, 0o777 if metadata.mode is None else 0o700)
                self._directories.append((entry.path, metadata))
            self.report.directories += 1
        except NotRestored as error:
            self._fail(entry.path, str(error))

    def _complete_directory(self, path: str, metadata: Metadata) -> None:
        try:
            self._note_refused(path, self._target.set_metadata(path, metadata))
        except NotRestored as error:
            self._fail(path, str(error))

    def _restore_symlink(self, entry: Entry) -> None:
        points_to, metadata, overwrite = entry.real.symlink_target, self._metadata(entry), self._settings.overwrite
        try:
            if not self._is_there(entry):
                if not self._settings.dry_run:
                    refused = self._target.make_symlink(entry.path, points_to, metadata, overwrite=overwrite)
                    self._note_refused(entry.path, refused)
                self.report.symlinks += 1
                self._on_outcome(entry, Outcome.RESTORED)
        except NotRestored as error:
            self._fail(entry.path, str(error))

    def _is_there(self, entry: Entry) -> bool:
        """Whether a file of equal size and time, or an equal symlink, is there; if so it is counted.

        Raises NotRestored where something else is in its place that may not be replaced.
        """
        status = self._target.status(entry.path)
        if status is None:
            return False
        if self._is_equal(entry, status):
            if entry.kind is Kind.FILE and self._settings.overwrite and not self._settings.dry_run:
                self._renew_metadata(entry)
            self.report.there += 1
            self._on_outcome(entry, Outcome.THERE)
            return True
        if stat.S_ISDIR(status.st_mode):
            raise NotRestored("a directory is in its place")
        if not self._settings.overwrite:
            raise NotRestored("something else is there (--overwrite replaces files and symlinks)")
        return False

    def _renew_metadata(self, entry: Entry) -> None:
        try:
            refused = self._target.set_metadata(entry.path, self._metadata(entry))
        except NotRestored as error:  # one that we may not open, for example, has its content all the same
            refused = [f"metadata: {error}"]
        self._note_refused(entry.path, refused)

    def _is_equal(self, entry: Entry, status: os.stat_result) -> bool:
        if entry.kind is Kind.SYMLINK:
            return stat.S_ISLNK(status.st_mode) and self._target.link_target(entry.path) == entry.real.symlink_target
        size_and_time = status.st_size, status.st_mtime_ns
        return stat.S_ISREG(status.st_mode) and size_and_time == (entry.size, entry.modified_ns)

    def _metadata(self, entry: Entry) -> Metadata:
        return Metadata.of(entry, owner=self._settings.owner, xattrs=self._settings.xattrs)

    def _fail(self, path: str, reason: str) -> None:
        self.report.failed.append(Problem(path, reason))

    def _note_refused(self, path: str, refused: list[str]) -> None:
        self.report.incomplete += (Problem(path, what) for what in refused)


async def _in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Runs it in a thread, to its end even where this task is cancelled: it uses what is closed after that."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
