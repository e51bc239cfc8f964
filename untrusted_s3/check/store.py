"""The check of a store: its records, and each folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from untrusted_s3.check.folder import FolderCounts, folder_check, unreadable
from untrusted_s3.check.share import Share
from untrusted_s3.check.strangers import strangers_of_store
from untrusted_s3.errors import CredentialsRefused, DataError, NoSuchBucket, NoSuchFolder, StoreRefused
from untrusted_s3.identity.sealed import SealedIdentity
from untrusted_s3.problem import Finding, Kind
from untrusted_s3.settings import Settings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.history import History
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import MAX_RECORDS, list_folders, up_to
from untrusted_s3.store.quotas import Quotas
from untrusted_s3.store.records import FolderRecord, NodeRecord, PeerRecord, StoreRecord, read_record
from untrusted_s3.store.retention import KeepRules
from untrusted_s3.store.usage import UsageRecord

_DEFAULTS: Final = Settings()
_RECORDS: Final[tuple[tuple[str, Callable[[dict[str, Any]], Any], Callable[[Any], str]], ...]] = (
    (layout.PEERS, PeerRecord.from_json, lambda record: layout.peer_key(record.device_id)),
    (layout.NODES, NodeRecord.from_json, lambda record: layout.node_key(record.device_id)),
    (layout.IDENTITIES, SealedIdentity.from_json, lambda record: layout.identity_key(record.name)),
    (layout.USAGE, UsageRecord.from_json, lambda record: layout.usage_key(record.device_id)),
    (layout.QUOTAS, Quotas.from_json, lambda record: layout.QUOTAS),
    (layout.RETENTION, KeepRules.from_json, lambda record: layout.RETENTION),
    (layout.HISTORY, History.from_json, lambda record: layout.HISTORY),
)


@dataclass(slots=True)
class CheckedFolder:
    """What a check knows of a folder before it begins with it.

    Attributes:
        keys: The keys of the folder.
        id: Its ID, or the segment of its keys if the record cannot be read.
        problem: What is wrong with its record.
        removed: Whether it is being removed.
    """

    keys: FolderKeys
    id: str
    problem: Finding | None = None
    removed: bool = False


@dataclass(slots=True)
class StoreCheck:
    """A check of a store that gateways may use meanwhile.

    Attributes:
        bucket: The store.
        share: Which objects are read; None for none.
        settings: Its settings.
        folders: What was checked of each folder, in the order of the keys.
    """

    bucket: Bucket
    share: Share | None = None
    settings: Settings = _DEFAULTS
    folders: list[FolderCounts] = field(default_factory=list)

    async def run(self, folder_ids: Collection[str] = ()) -> AsyncIterator[Finding]:
        """Check all of the store, or only some folders. Yield what is wrong.

        Raises NoSuchFolder, DataError if this is no store or one of a newer version, and StoreError.
        """
        folders = await read_checked_folders(self.bucket)
        if not folder_ids:
            async for finding in check_records(self.bucket, has_folders=bool(folders)):
                yield finding
        for folder_id in folder_ids:
            if all(folder.id != folder_id for folder in folders):
                raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        for folder in folders:
            if folder_ids and folder.id not in folder_ids:
                continue
            if folder.problem is not None:
                yield folder.problem
            if folder.removed:
                yield Finding(folder.keys.record, "the folder is being removed; it is not checked", Kind.UNKNOWN)
                continue
            counts = FolderCounts(folder.id)
            self.folders.append(counts)
            with folder_check(self.bucket, folder.keys, counts, self.settings, self.share) as check:
                async for finding in check.run():
                    yield finding


async def read_checked_folders(bucket: Bucket) -> list[CheckedFolder]:
    """Return all folders of a store, also those whose records cannot be read. Raises StoreError."""
    folders = []
    async for keys in list_folders(bucket):
        folder = CheckedFolder(keys, keys.base.removeprefix(layout.FOLDERS).rstrip("/"))
        folders.append(folder)
        try:
            record = await read_record(bucket, keys.record, FolderRecord.from_json)
        except (NoSuchBucket, CredentialsRefused):
            raise
        except (DataError, StoreRefused) as error:
            folder.problem = unreadable(keys.record, error)
            continue
        if record is None:
            folder.problem = Finding(keys.record, "the record of the folder is missing or empty", Kind.RECORD)
        elif FolderKeys.of(record.folder_id) != keys:
            folder.problem = Finding(keys.record, f"it is the record of {record.folder_id!r}", Kind.RECORD)
        else:
            folder.id, folder.removed = record.folder_id, record.removed
    return sorted(folders, key=lambda folder: folder.keys.base)


async def check_records(bucket: Bucket, *, has_folders: bool) -> AsyncIterator[Finding]:
    """Yield what is wrong with the records of a store, but those of folders.

    Raises DataError if this is no store or one of a newer version, and StoreError.
    """
    body: object = None
    try:
        body = await read_record(bucket, layout.STORE, StoreRecord.from_json)
    except DataError as error:
        if not has_folders:
            raise
        yield unreadable(layout.STORE, error)
    else:
        if body is None and not has_folders:
            raise DataError("there is no store of this program here")
        if body is None:
            yield Finding(layout.STORE, "it is missing or empty", Kind.RECORD)
    for prefix, from_json, key_of in _RECORDS:
        async for item in up_to(MAX_RECORDS, bucket.list(prefix), prefix):
            if not prefix.endswith("/") and item.key != prefix:
                continue
            try:
                record = await read_record(bucket, item.key, from_json)
            except (NoSuchBucket, CredentialsRefused):
                raise
            except (DataError, StoreRefused) as error:
                yield unreadable(item.key, error)
                continue
            if record is not None and key_of(record) != item.key:
                yield Finding(item.key, f"its content belongs to {key_of(record)}", Kind.RECORD)
    for finding in (await strangers_of_store(bucket)).findings():
        yield finding
