"""The quotas of a store as a running gateway knows and applies them, and what they keep from coming in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.quotas import Quotas, read_quotas
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit, LimitKind

_logger = structlog.get_logger()


class QuotaKeeper:
    """Knows the limits for all open folders. `folders` returns those.

    Attributes:
        quotas: The quotas as they were read last.
    """

    def __init__(self, bucket: Bucket, folders: Callable[[], Iterable[Folder]]) -> None:
        self.quotas = Quotas()
        self._bucket = bucket
        self._folders = folders
        self._unreadable: str | None = None

    async def run(self, interval: float) -> None:
        """Read the quotas every `interval` seconds, and let what has room now come in, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.load()
            except StoreError as error:
                _logger.warning("quotas not read", error=str(error))
            for folder in self._folders():
                folder.look_at_quota()

    async def load(self) -> None:
        """Read the quotas. If their record is damaged, those stay that were read last. Raises StoreError."""
        try:
            self.quotas = await read_quotas(self._bucket)
        except DataError as error:
            if self._unreadable is None:
                _logger.error("record of quotas not readable", error=str(error))
            self._unreadable = str(error)
        else:
            self._unreadable = None

    def limits(self, folder: Folder, device_id: DeviceID) -> list[Limit]:
        """Return the limits for a file that a device has announced in a folder."""
        found = []
        quota = self.quotas.folders.get(folder.record.folder_id)
        if quota is not None:
            found.append(Limit(LimitKind.FOLDER, quota, folder.used_bytes))
        return found

    def problems(self) -> dict[str, str]:
        """Return for which folders files wait and why, by their names for /readyz."""
        found = {}
        if self._unreadable is not None:
            found[f"{layout.QUOTAS}: not readable"] = self._unreadable
        for folder in self._folders():
            if reached := folder.limits_reached:
                name = f"folder {folder.record.folder_id}: files wait for room"
                found[name] = "; ".join(map(str, reached))
        return found
