"""The quotas of a store and the limit of a gateway, as it knows and applies them, and what they keep from coming in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, StoreError, StoreUnreachable, UntrustedS3Error
from untrusted_s3.gateway.used_bytes import UsedBytes
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.quotas import Quotas, read_quotas
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit, LimitKind

_logger = structlog.get_logger()


class QuotaKeeper:
    """Knows the limits for all open folders. `folders` returns those.

    `max_store` is the most bytes that this gateway lets all of them together have, or None for any number.

    Attributes:
        quotas: The quotas as they were read last.
        used: What all open folders have together.
    """

    def __init__(
        self,
        bucket: Bucket,
        folders: Callable[[], Iterable[Folder]],
        settings: UpkeepSettings,
        max_store: int | None = None,
    ) -> None:
        self.quotas = Quotas()
        self.used = UsedBytes(folders)
        self._bucket = bucket
        self._folders = folders
        self._settings = settings
        self._max_store = max_store
        self._unreadable: str | None = None
        # When they were last read, and when the last reading ended.
        self._last_read = self._known_at = float("-inf")
        self._last_file = float("-inf")
        # Since when a file waits for them to be read.
        self._awaited: float | None = None
        self._asked = asyncio.Event()

    async def run(self) -> None:
        """Read the quotas when they are due, and let what has room now come in, until cancelled.

        They are due after `quota_interval` if they were asked for, because files come in or wait, after
        `max_quota_interval` in any case, and at once if a file waits for them.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.record_interval):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            if self._awaited is not None or self._is_due(asked):
                await self._read()
            for folder in self._folders():
                folder.look_at_quota()

    def _is_due(self, asked: bool) -> bool:
        settings = self._settings
        return _now() >= self._last_read + (settings.quota_interval if asked else settings.max_quota_interval)

    async def _read(self) -> None:
        began = _now()
        try:
            await self.load()
        except StoreError as error:
            _logger.warning("quotas not read", error=str(error))
        finally:
            self._known_at = _now()
            if self._awaited is not None and self._awaited <= began:
                self._awaited = None

    def are_known(self) -> bool:
        """Return whether a file that comes in now may be judged by the quotas that are known.

        The first file after a while waits until they are read again, but not long for a store that does not give them:
        an operator who sets a quota expects that it holds from now on.
        """
        now, pause = _now(), self._settings.quota_pause
        if now > self._last_file + pause and now > self._known_at + pause:
            self._awaited = now
            self._asked.set()
        self._last_file = now
        return self._awaited is None

    async def load(self) -> None:
        """Read the quotas. If their record cannot be read, those stay that were read last.

        Raises StoreUnreachable if the store does not answer to other requests either.
        """
        self._last_read = _now()
        try:
            async with asyncio.timeout(self._settings.quota_timeout):
                quotas = await read_quotas(self._bucket)
        except (DataError, StoreError, TimeoutError) as error:
            if isinstance(error, StoreUnreachable | TimeoutError):
                # It may be this one object that the store cannot give. Otherwise this raises as well.
                await self._bucket.size(layout.STORE)
            reason = str(error) or "the store does not answer in time"
            if self._unreadable is None:
                _logger.error("record of quotas not readable", error=reason)
            self._unreadable = reason
            return
        self._unreadable = None
        if quotas.devices:
            for folder in self._folders():
                with contextlib.suppress(UntrustedS3Error):  # the folder is opened again
                    await folder.count_sources()
        self.quotas = quotas

    def limits(self, folder: Folder, device_id: DeviceID) -> list[Limit]:
        """Return the limits for a file that a device has announced in a folder."""
        if self._is_due(asked=True):
            self._asked.set()
        found = []
        quota = self.quotas.folders.get(folder.record.folder_id)
        if quota is not None:
            found.append(Limit(LimitKind.FOLDER, quota, folder.used_bytes))
        quota = self.quotas.devices.get(device_id)
        if quota is not None:
            found.append(Limit(LimitKind.DEVICE, quota, self.used.of(device_id), device_id))
        if self._max_store is not None:
            found.append(Limit(LimitKind.STORE, self._max_store, self.used.total))
        return found

    def of_folder(self, folder_id: str) -> dict[str, Any]:
        """Return what /api/status says of a folder."""
        return {"quota": self.quotas.folders.get(folder_id)}

    def of_peer(self, device_id: DeviceID) -> dict[str, Any]:
        """Return what /api/status says of a device. What it uses is counted only if it has a quota."""
        quota = self.quotas.devices.get(device_id)
        return {"quota": quota, "used_bytes": self.used.of(device_id) if quota is not None else None}

    def of_store(self) -> dict[str, Any]:
        """Return what /api/status says of the store."""
        return {"max_store": self._max_store, "used_bytes": self.used.total}

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


def _now() -> float:
    return asyncio.get_running_loop().time()
