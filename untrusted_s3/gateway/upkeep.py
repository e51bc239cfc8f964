"""Upkeep every few hours: trims logs and checkpoints, collects garbage, and ends uploads that nobody finishes.

Several gateways may do it at once. One whose credentials may not delete leaves to others what it may not do.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, DeletionDenied, StateDamaged, StoreError
from untrusted_s3.gateway.troubles import Troubles
from untrusted_s3.index.trimming import trim
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.history import read_history, settle_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.retention import read_rules
from untrusted_s3.upkeep.garbage import GarbageCollector

_logger = structlog.get_logger()


class Maintenance:
    """The upkeep of one store.

    `positions` returns the folders that are open now, and how far the log of each is known. `history_days` is how many
    days of their history are kept if the store does not say it yet; with `history_is_wanted` a store that keeps less
    shall keep as much. `want_checkpoint` has a checkpoint of a folder written if the newest is older than so many
    seconds and the folder has changed since. `checkpoints` returns how many checkpoints were written here of each open
    folder.
    """

    def __init__(
        self,
        bucket: Bucket,
        positions: Callable[[], Mapping[str, int]],
        history_days: int,
        counters: Counters,
        settings: UpkeepSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        directory: Path | None = None,
        *,
        history_is_wanted: bool = False,
        collects_garbage: bool = False,
        want_checkpoint: Callable[[str, float], object] = lambda folder_id, age: None,
        checkpoints: Callable[[], Mapping[str, int]] = dict,
        troubles: Troubles | None = None,
    ) -> None:
        """`directory` is for temporary files. What fails is noted in `troubles`."""
        self._bucket = bucket
        self._positions = positions
        self._history_days = history_days
        self._history_is_wanted = history_is_wanted
        self._counters = counters
        self._settings = settings
        self._sleep = sleep
        self._directory = directory
        self._collects_garbage = collects_garbage
        self._want_checkpoint = want_checkpoint
        self._checkpoints = checkpoints
        self._troubles = troubles or Troubles()
        self._said: list[str] = []
        self._is_settled = False

    async def run(self) -> None:
        """Take a turn soon and then every few hours, until cancelled. The delays differ between gateways."""
        delay = self._settings.first_delay
        self._say_what_is_denied()  # the trial of the store may know it
        while True:
            await self._sleep(random.uniform(0.5, 1.5) * delay)  # noqa: S311
            await self.turn()
            delay = self._settings.interval

    async def trim_busy(self) -> None:
        """Trim each log soon after several checkpoints of it were written, until cancelled.

        A folder that takes in a million files gets dozens within an hour, each of up to half a GiB.
        """
        seen: dict[str, int] = {}
        while True:
            await self._sleep(self._settings.busy_trim_interval)
            for folder_id, written in self._checkpoints().items():
                before = seen.get(folder_id, 0)
                if before <= written < before + self._settings.busy_checkpoints or not self._bucket.deletions.objects:
                    continue
                seen[folder_id] = written
                position = self._positions().get(folder_id)
                if position is not None and written > 0:
                    await self._trim(folder_id, position)

    async def turn(self) -> None:
        """Do all upkeep once. What fails is logged and left to the next turn.

        When the store has denied a deletion, what needs such a right is left out from then on.
        """
        may = self._bucket.deletions
        await self._settle_history()
        for folder_id, position in self._positions().items():
            if may.objects:
                await self._trim(folder_id, position)
            self._want_checkpoint(folder_id, self._settings.checkpoint_age)
            if may.objects and self._collects_garbage:
                await self._collect(folder_id)
        if may.uploads:
            await self._abort_uploads()
        self._say_what_is_denied()

    async def _settle_history(self) -> None:
        """Agree with other gateways on how much history is kept."""
        if self._is_settled:
            return
        days = self._history_days
        try:
            found = await settle_history(self._bucket, days, is_wanted=self._history_is_wanted)
        except (StoreError, DataError) as error:
            _logger.warning("history not known", error=str(error))
            self._troubles.note("history not known", error)
            return
        self._troubles.note("history not known", None)
        self._is_settled = True
        if found.days != days and self._history_is_wanted:
            _logger.warning("history is longer in the store", days=found.days, wanted=days)

    def _say_what_is_denied(self) -> None:
        denied = self._bucket.deletions.denied
        if denied != self._said:
            self._said = denied
            _logger.warning(
                "upkeep left to others",
                denied=denied,
                hint="the store denies these operations to this gateway: somebody who may has to clean up now and then",
            )

    async def _abort_uploads(self) -> None:
        try:
            await abort_old_uploads(self._bucket, layout.FOLDERS, self._counters)
        except DeletionDenied:
            pass  # it is said at the end of the turn
        except StoreError as error:
            _logger.warning("old uploads not aborted", error=str(error))

    async def _trim(self, folder_id: str, position: int) -> None:
        trouble: Exception | None = None
        try:
            await self._trim_once(folder_id, position)
        except DeletionDenied:
            pass  # it is said at the end of the turn
        except (StoreError, DataError) as error:
            trouble = error
            _logger.warning("log not trimmed", folder=folder_id, error=str(error))
        self._troubles.of_folder(folder_id, "log not trimmed", trouble)

    async def _trim_once(self, folder_id: str, position: int) -> None:
        # If the rules or the history cannot be read, nobody knows what is to be kept, and nothing is cleaned up.
        keep = await read_rules(self._bucket, FolderKeys.of(folder_id))
        history = await read_history(self._bucket, FolderKeys.of(folder_id))
        if history is None:
            return  # it is not settled yet
        trimmed = await trim(
            self._bucket,
            FolderKeys.of(folder_id),
            history.seconds(self._bucket.now()),
            known=position,
            directory=self._directory,
            keep=keep,
        )
        self._counters.checkpoints_deleted.inc(trimmed.checkpoints)
        self._counters.segments_deleted.inc(trimmed.segments)
        if trimmed.kept:
            _logger.info("states kept beyond the history", folder=folder_id, states=trimmed.kept)
        if trimmed.checkpoints or trimmed.segments:
            _logger.info("log trimmed", folder=folder_id, checkpoints=trimmed.checkpoints, segments=trimmed.segments)

    async def _collect(self, folder_id: str) -> None:
        """Collect the garbage of a folder. With an error, a part may be done."""
        collector = GarbageCollector(self._bucket, FolderKeys.of(folder_id), directory=self._directory)
        trouble: Exception | None = None
        try:
            await collector.collect()
        except DeletionDenied:
            return  # it is said at the end of the turn
        except (StoreError, DataError, StateDamaged, OSError, sqlite3.Error) as error:
            trouble = error
            _logger.warning("garbage not collected", folder=folder_id, error=str(error))
        self._troubles.of_folder(folder_id, "garbage not collected", trouble)
        done = collector.result
        self._counters.garbage_deleted.inc(done.deleted.objects)
        self._counters.garbage_bytes_deleted.inc(done.deleted.bytes)
        if done.found.objects:
            _logger.info("garbage found", folder=folder_id, objects=done.found.objects, bytes=done.found.bytes)
        if done.deleted.objects:
            _logger.info("garbage deleted", folder=folder_id, objects=done.deleted.objects, bytes=done.deleted.bytes)
