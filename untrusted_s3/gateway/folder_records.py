"""The records of folders, as the gateway reads, creates and restores them."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from untrusted_s3.bep.cluster_config import FolderOffer, check_token
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    DataError,
    FolderNotAllowed,
    FolderRefused,
    OtherPassword,
    PreconditionFailed,
    RequestRefused,
)
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, create_folder, read_record, write_record
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()


class FolderRecords:
    """`max_folders` is how many folders the store may have, `of_device` how many of them one device may create."""

    def __init__(self, bucket: Bucket, max_folders: int, of_device: int) -> None:
        self._bucket = bucket
        self._max_folders = max_folders
        self._of_device = of_device
        # By folder ID, the position of the log when the record was there last.
        self._positions: dict[str, int] = {}
        # By folder ID, why the record of an open folder could not be read at the last look.
        self._unreadable: dict[str, str] = {}

    def problems(self, folder_ids: Collection[str]) -> dict[str, str]:
        """Return which of these folders have unreadable records and why, by their names for /readyz."""
        return {
            f"folder {folder_id}: record not readable": self._unreadable[folder_id]
            for folder_id in folder_ids
            if folder_id in self._unreadable
        }

    def note_unreadable(self, folder_id: str, error: BaseException) -> None:
        """Note that the record of a folder cannot be read, though those of others can."""
        self._unreadable[folder_id] = str(error)

    def was_there(self, folder_id: str, position: int) -> None:
        """Note that a folder's record was there when its log had this position."""
        self._positions[folder_id] = position

    async def read_again(self, before: FolderRecord) -> tuple[FolderRecord | None, bool]:
        """Read the record of a folder again; return it, and whether the folder is gone or being removed.

        A record that cannot be read now says nothing about that, and is one of the `problems`. Raises StoreError.
        """
        key = FolderKeys.of(before.folder_id).record
        try:
            record = await read_record(self._bucket, key, FolderRecord.from_json)
        except (DataError, RequestRefused) as error:
            if before.folder_id not in self._unreadable:
                _logger.error("folder not readable", key=key, reason=str(error))
            self.note_unreadable(before.folder_id, error)
            return None, False
        self._unreadable.pop(before.folder_id, None)
        if record is None:
            # One without bytes counts as none, but is no removal.
            return None, await self._bucket.size(key) is None
        return record, record.removed or record.index_id != before.index_id

    async def write_again(self, folder: Folder) -> bool:
        """Write the record of a folder again that the store has lost. Return False if the folder was removed.

        A removal deletes all else before the record. What gateways have written since the record was there last says
        nothing: they may not know of the removal. Raises StoreError.
        """
        record = folder.record
        if not await folder.log_remains(self._positions.get(record.folder_id, 0)):
            return False
        key = FolderKeys.of(record.folder_id).record
        try:
            await write_record(self._bucket, key, record.to_json(), create=True)
        except PreconditionFailed:
            return True  # the next look sees what it is
        _logger.error("record of a folder was lost, and is written again", folder=record.folder_id)
        return True

    async def find_or_create(
        self, offer: FolderOffer, by: DeviceID, others: Collection[FolderRecord], *, create: bool
    ) -> FolderRecord:
        """Return the record of an offered folder, which may say that it is being removed. `others` are of open folders.

        Raises FolderRefused if the record is missing and may not be created. Raises DataError or StoreError.
        """
        if len(others) >= self._max_folders:
            raise FolderRefused(f"this store already has {len(others)} folders and takes no more")
        fresh = FolderRecord(offer.folder_id, offer.label, offer.token, created_by=by)
        key = FolderKeys.of(offer.folder_id).record
        created = sum(record.created_by == by for record in others)
        is_full = created >= self._of_device
        if (is_full or not create) and await read_record(self._bucket, key, FolderRecord.from_json) is None:
            if create:
                raise FolderRefused(f"this device has created {created} folders here and may create no more")
            raise FolderNotAllowed("the store does not have this folder, and the device may only read")
        record = await create_folder(self._bucket, fresh)
        if not record.removed and record.folder_id != offer.folder_id:
            raise DataError(f"{key} belongs to another folder")
        return record


def check_password(offer: FolderOffer, by: DeviceID, record: FolderRecord) -> None:
    """Check that a device offers a folder with the password that it has in the store. Raises OtherPassword."""
    try:
        check_token(offer.token, record.token)
    except OtherPassword as error:
        creator = record.created_by
        if creator in (None, by):
            raise
        raise OtherPassword(
            f"another password: the device {creator} has offered a folder with this ID before, with another "
            "encryption password, and its data are stored. If the two are the same folder, set the same password "
            "for this device again. If not, one of them needs another folder ID: a folder's ID cannot be changed, "
            "so add the folder in Syncthing again with another one"
        ) from error
