"""Writes the list of each folder's present objects once a day, if anything has changed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from untrusted_s3.errors import DataError, StateDamaged, StoreError
from untrusted_s3.gateway.troubles import Troubles
from untrusted_s3.index.present_objects import listed_position
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_logger = structlog.get_logger()


class ListedFolder(Protocol):
    """What is needed of an open folder."""

    @property
    def position(self) -> int:
        """How far its log is known."""

    async def list_present_objects(self) -> int:
        """Write the list and return its position."""


class OpenFolders(Protocol):
    """The folders that are open."""

    def by_id(self) -> Iterable[tuple[str, ListedFolder]]:
        """Return them with their IDs."""


class PresentLists:
    """The lists of one store. Several gateways may write them: each looks first whether another one has."""

    def __init__(
        self,
        bucket: Bucket,
        folders: OpenFolders,
        settings: UpkeepSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        troubles: Troubles | None = None,
    ) -> None:
        """What fails is noted in `troubles`."""
        self._troubles = troubles or Troubles()
        self._bucket = bucket
        self._folders = folders
        self._settings = settings
        self._sleep = sleep

    async def run(self) -> None:
        """Take a turn some minutes after the start and then once a day, until cancelled."""
        delay = self._settings.first_list_delay
        while True:
            await self._sleep(random.uniform(0.5, 1.5) * delay)  # noqa: S311
            await self.turn()
            delay = self._settings.list_interval

    async def turn(self) -> None:
        """Write the lists of the folders that have changed. What fails is logged and left to the next turn."""
        for folder_id, folder in list(self._folders.by_id()):
            if not folder.position:
                continue
            trouble: Exception | None = None
            try:
                if await listed_position(self._bucket, FolderKeys.of(folder_id)) != folder.position:
                    position = await folder.list_present_objects()
                    _logger.info("present objects listed", folder=folder_id, position=position)
            except (StoreError, DataError, StateDamaged, OSError, sqlite3.Error) as error:
                trouble = error
                _logger.warning("present objects not listed", folder=folder_id, error=str(error))
            self._troubles.of_folder(folder_id, "present objects not listed", trouble)
