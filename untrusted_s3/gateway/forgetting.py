"""Forgets what is pending from devices that are not accepted any more."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Container, Iterable

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import StateDamaged
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()


class Forgetting:
    """Goes over the open folders. `accepted` returns the accepted devices."""

    def __init__(self, folders: Iterable[Folder], accepted: Callable[[], Container[DeviceID]]) -> None:
        self._folders = folders
        self._accepted = accepted

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.look()

    async def look(self) -> None:
        """Forget the devices that are not accepted, in all folders."""
        for folder in self._folders:
            try:
                for device_id in folder.announcing_devices():
                    if device_id not in self._accepted():
                        await folder.forget_device(device_id)
                        _logger.info("removed device forgotten", folder=folder.record.folder_id, device=str(device_id))
            except (StateDamaged, sqlite3.ProgrammingError):
                continue  # the folder is opened again, or was removed meanwhile
