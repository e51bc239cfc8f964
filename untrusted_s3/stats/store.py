"""What a store holds: its folders, its records, and what else lies there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from untrusted_s3.check.store import CheckedFolder, read_checked_folders
from untrusted_s3.errors import DataError, NoSuchFolder, NoSuchKey, StoreRefused, UploadLost
from untrusted_s3.settings import Settings
from untrusted_s3.stats.amounts import Contents
from untrusted_s3.stats.folder import FolderCount, FolderStats
from untrusted_s3.stats.requests import RequestStats, read_requests
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import STANDARD, Bucket
from untrusted_s3.store.records import StoreRecord, read_record

_DEFAULTS: Final = Settings()


@dataclass(slots=True)
class StoreStats:
    """The statistics of a store that gateways may use meanwhile.

    Attributes:
        bucket: The store.
        settings: Its settings.
        folders: What each folder holds, in the order of the keys.
        outside: What lies outside of folders.
        requests: The requests of all gateways; None if only some folders are looked at.
        doing: What is done now.
    """

    bucket: Bucket
    settings: Settings = _DEFAULTS
    folders: list[FolderStats] = field(default_factory=list)
    outside: Contents = field(default_factory=Contents)
    requests: RequestStats | None = None
    doing: str = ""

    @property
    def total(self) -> Contents:
        """All that was counted."""
        found = Contents()
        for one in (self.outside, *(folder.contents for folder in self.folders)):
            found.add_all(one)
        return found

    async def run(self, folder_ids: Collection[str] = ()) -> None:
        """Count what is in all of the store, or only in some folders.

        Raises NoSuchFolder, DataError if this is no store or one of a newer version, and StoreError.
        """
        folders = await read_checked_folders(self.bucket)
        if await read_record(self.bucket, layout.STORE, StoreRecord.from_json) is None and not folders:
            raise DataError("there is no store of this program here")
        for folder_id in folder_ids:
            if all(folder.id != folder_id for folder in folders):
                raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        for folder in folders:
            if not folder_ids or folder.id in folder_ids:
                await self._count(folder)
        if not folder_ids:
            self.doing = "looking outside of folders"
            await self._look_outside()
            self.requests = await read_requests(self.bucket)

    async def _count(self, folder: CheckedFolder) -> None:
        stats = FolderStats(folder.id)
        self.folders.append(stats)
        count = FolderCount(self.bucket, folder.keys, stats, self.settings, is_removed=folder.removed)
        await count.run()
        await self._add_uploads(folder.keys.base, stats.contents)

    async def _add_uploads(self, prefix: str, contents: Contents) -> None:
        """Count unfinished uploads, on a store that lists them."""
        try:
            async for upload in self.bucket.list_multipart_uploads(prefix):
                size = 0
                try:
                    async for part in self.bucket.list_parts(upload.key, upload.upload_id):
                        size += part.size
                except (UploadLost, NoSuchKey):
                    continue  # it has ended meanwhile
                contents.uploads.add(size)
                contents.of_class(STANDARD).add(size)
        except StoreRefused:
            pass

    async def _look_outside(self) -> None:
        directories = sorted([one async for one in self.bucket.list_directories("")])
        for directory in directories:
            if directory == layout.FOLDERS:
                continue
            amount = self.outside.log if directory in layout.DIRECTORIES else self.outside.unknown
            async for item in self.bucket.list(directory):
                amount.add(item.size)
                self.outside.of_class(item.storage_class).add(item.size)
        for key in layout.RECORDS:
            size = await self.bucket.size(key)
            if size is not None:
                self.outside.log.add(size)
                self.outside.of_class(STANDARD).add(size)
