"""Verifies entries of a folder: every byte of their objects. Writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from untrusted_s3.errors import DataError, RequestRefused, StoreUnreachable
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.problem import Problem
from untrusted_s3.progress import Progress
from untrusted_s3.settings import ReadSettings
from untrusted_s3.vault.concurrency import for_each
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.read_pipeline import ReadPipeline
from untrusted_s3.vault.refusals import Refusals
from untrusted_s3.verify.object_check import ObjectCheck
from untrusted_s3.verify.report import VerifyReport


class Verification:
    """One run. A context manager.

    Attributes:
        report: What was verified so far.
    """

    def __init__(
        self, folder: Folder, progress: Progress, settings: ReadSettings | None = None, *, list_objects: bool = False
    ) -> None:
        """Make a run. With `list_objects`, object sizes come from one listing, which is cheaper for a whole folder."""
        self.report = VerifyReport()
        self._folder = folder
        self._progress = progress
        self._settings = settings if settings is not None else ReadSettings()
        self._sizes = ObjectSizes(folder.keys) if list_objects else None
        self._pipeline = ReadPipeline(self._settings)
        self._refusals = Refusals()
        self._large_files = asyncio.Semaphore(self._settings.concurrent_large_files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipeline.close()
        if self._sizes is not None:
            self._sizes.close()

    async def run(self, entries: Iterable[Entry | DamagedEntry]) -> VerifyReport:
        """Verify entries, many at once.

        What is damaged, and objects that the store refuses or fails to give, are in the report. Raises StoreError if
        the store fails or refuses everything.
        """
        if self._sizes is not None:
            await self._sizes.load(self._folder.bucket)
        await for_each(entries, self._verify, self._settings.concurrent_files)
        self.report.damaged.sort(key=lambda problem: problem.path)
        self.report.unreadable.sort(key=lambda problem: problem.path)
        return self.report

    async def _verify(self, entry: Entry | DamagedEntry) -> None:
        if isinstance(entry, DamagedEntry):
            self.report.damaged.append(Problem(entry.path or entry.encrypted_name, entry.reason))
        elif entry.kind is Kind.FILE:
            await self._verify_file(entry)
        else:
            self.report.others += 1  # it consists of its file info, which was decrypted

    async def _verify_file(self, entry: Entry) -> None:
        counted = self._progress.begin(entry.encrypted.message.size)
        assert entry.stored is not None
        check = ObjectCheck(self._folder, entry, entry.stored)
        try:
            check.check_size(await self._size_of(entry.key), self._settings.read_size)
            if entry.stored.size <= self._pipeline.read_size:
                await check.run(self._pipeline, counted)
            else:
                async with self._large_files:
                    await check.run(self._pipeline, counted)
            self._refusals.note_read()
        except DataError as error:
            self.report.damaged.append(_problem(entry, error))
        except RequestRefused as error:
            self._refusals.note(error)
            self.report.unreadable.append(_problem(entry, error))
            counted.end()
            return
        except StoreUnreachable as error:
            await self._refusals.note_unreachable(error, self._folder.bucket, self._folder.keys.record)
            self.report.unreadable.append(_problem(entry, error))
            counted.end()
            return
        self.report.files += 1
        self.report.other_versions += entry.is_other
        self.report.bytes += entry.stored.size
        counted.end()

    async def _size_of(self, key: str) -> int | None:
        return await self._folder.bucket.size(key) if self._sizes is None else self._sizes.get(key)


def _problem(entry: Entry, error: Exception) -> Problem:
    """Return what is wrong with a file; of one path there may be several versions."""
    return Problem(entry.path, f"another version of it: {error}" if entry.is_other else str(error))
