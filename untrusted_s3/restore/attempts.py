"""The frame around each file of a run: what fails is reported and does not stop the rest, but a full disk does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from untrusted_s3.errors import DataError, DiskFull, NotRestored, RequestRefused, StoreError, StoreUnreachable
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.vault.refusals import Refusals


class FailureReport(Protocol):
    """The part of a run's report that is about failures.

    Attributes:
        failed: What failed.
        not_tried: How many were not tried after the disk was full.
    """

    failed: list[Problem]
    not_tried: int


class Attempts:
    """The attempts of one run.

    Attributes:
        disk_full: Whether the disk is full, so that nothing is tried any more.
    """

    def __init__(
        self,
        report: FailureReport,
        bucket: Bucket,
        present_key: str,
        on_failed: Callable[[str, Exception], None] = lambda path, error: None,
    ) -> None:
        """`present_key` is the key of an object that the store has. `on_failed` is called for what is in the report."""
        self.disk_full = False
        self._report = report
        self._bucket = bucket
        self._present_key = present_key
        self._on_failed = on_failed
        self._refusals = Refusals()

    def skips(self) -> bool:
        """Return whether the next one is not to be tried, and count it then."""
        self._report.not_tried += self.disk_full
        return self.disk_full

    @asynccontextmanager
    async def trying(self, path: str) -> AsyncIterator[None]:
        """Let errors of one file end the context and be reported.

        These are damage, what the system refuses, and objects that the store refuses or fails to give. Raises
        StoreError if the store fails or refuses everything.
        """
        try:
            yield
        except RequestRefused as error:
            self._refusals.note(error)
            self.fail(path, error)
        except StoreUnreachable as error:
            await self._refusals.note_unreachable(error, self._bucket, self._present_key)
            self.fail(path, error)
        except (NotRestored, DataError) as error:
            self.fail(path, error)

    def note_read(self) -> None:
        """Note that the store has given an object."""
        self._refusals.note_read()

    def fail(self, path: str, error: NotRestored | DataError | StoreError) -> None:
        """Report that one failed."""
        if isinstance(error, DiskFull):
            if self.skips():
                return
            self.disk_full = True
        self._report.failed.append(Problem(path, str(error)))
        self._on_failed(path, error)
