"""The disk with the local state: whether it can be written to, and how much room it has."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from untrusted_s3.errors import StateFolderUnusable
from untrusted_s3.threads import in_thread
from untrusted_s3.units import MIB

_TRIAL_SIZE = 64 * 1024
_logger = structlog.get_logger()


class LocalDisk:
    """The disk that has `directory`. It is in order while at least `min_free` bytes are free and can be written.

    `on_look` is called after each look with whether it is.

    Attributes:
        problem: What is wrong with it, for the operator; None while it is in order.
    """

    def __init__(self, directory: Path, min_free: int, on_look: Callable[[bool], None] = lambda in_order: None) -> None:
        self.problem: str | None = None
        self._directory = directory
        self._min_free = min_free
        self._on_look = on_look

    async def open(self) -> None:
        """Make the directory if it is missing, and write to it. Raises StateFolderUnusable."""
        try:
            free = await in_thread(self._try)
        except OSError as error:
            raise StateFolderUnusable(f"the state folder {self._directory} cannot be written to: {error}") from error
        self._note(self._shortage(free))

    async def watch(self, interval: float) -> None:
        """Look at the disk every `interval` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.look()

    async def look(self) -> None:
        """Write to the disk and ask for its room."""
        try:
            self._note(self._shortage(await in_thread(self._try)))
        except OSError as error:
            self._note(f"the local disk cannot be written to: {error}")

    def _shortage(self, free: int) -> str | None:
        if free >= self._min_free:
            return None
        return f"the local disk is nearly full: {free // MIB} MiB are free, {self._min_free // MIB} MiB should be"

    def _note(self, problem: str | None) -> None:
        if problem is not None and self.problem is None:
            _logger.error("local disk not in order", error=problem)
        elif problem is None and self.problem is not None:
            _logger.info("local disk in order again")
        self.problem = problem
        self._on_look(problem is None)

    def _try(self) -> int:
        """Return the number of free bytes after a trial. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=self._directory) as trial:
            trial.write(bytes(_TRIAL_SIZE))
            trial.flush()
            os.fsync(trial.fileno())
        return shutil.disk_usage(self._directory).free
