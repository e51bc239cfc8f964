"""What a gateway does every few hours so that a store does not grow for ever: it trims logs and checkpoints, and ends
uploads that nobody finishes. Several gateways may do it at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import structlog

from untrusted_s3 import limits
from untrusted_s3.counters import Counters
from untrusted_s3.errors import StoreError
from untrusted_s3.index.trimming import trim
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_logger = structlog.get_logger()


class Maintenance:
    """Keeps one store small. `folder_ids` gives the folders that are open now, `history` is the time in seconds for
    which what they were is kept."""

    def __init__(
        self, bucket: Bucket, folder_ids: Callable[[], Iterable[str]], history: float, counters: Counters
    ) -> None:
        self._bucket = bucket
        self._folder_ids = folder_ids
        self._history = history
        self._counters = counters

    async def run(self) -> None:
        """A turn soon, and then one every few hours, until cancelled; not at the same time as other gateways."""
        delay = limits.FIRST_MAINTENANCE_DELAY
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * delay)  # noqa: S311
            await self.turn()
            delay = limits.MAINTENANCE_INTERVAL

    async def turn(self) -> None:
        """Does all of it once. What fails is logged, and left to the next turn."""
        for folder_id in list(self._folder_ids()):
            try:
                await self._trim(folder_id)
            except StoreError as error:
                _logger.warning("cannot trim the log", folder=folder_id, error=str(error))
        try:
            await abort_old_uploads(self._bucket, layout.FOLDERS, self._counters)
        except StoreError as error:
            _logger.warning("cannot abort old uploads", error=str(error))

    async def _trim(self, folder_id: str) -> None:
        trimmed = await trim(self._bucket, FolderKeys.of(folder_id), self._history)
        self._counters.checkpoints_deleted.inc(trimmed.checkpoints)
        self._counters.segments_deleted.inc(trimmed.segments)
        if trimmed.checkpoints or trimmed.segments:
            _logger.info("log trimmed", folder=folder_id, checkpoints=trimmed.checkpoints, segments=trimmed.segments)
