"""Copies a store, or some of its folders, into another bucket, while gateways write to the store.

The copy is a store of its own. Nothing but this may write to it as long as it is to follow the store.
"""

from __future__ import annotations

from collections.abc import Collection

from untrusted_s3.errors import DataError, NoSuchFolder, UsageError
from untrusted_s3.problem import Problem
from untrusted_s3.progress import Progress
from untrusted_s3.replication.folder_copy import FolderCopy, ReplicationReport
from untrusted_s3.replication.kinds import OF_STORE
from untrusted_s3.replication.object_copier import ObjectCopier
from untrusted_s3.replication.records import copy_small
from untrusted_s3.settings import Settings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.folder_removal import check_no_gateway_runs
from untrusted_s3.store.format import VERSION
from untrusted_s3.store.records import StoreRecord, read_folders, read_record, write_record


async def replicate(
    source: Bucket,
    target: Bucket,
    folders: Collection[str],
    settings: Settings,
    memory: int,
    progress: Progress,
) -> ReplicationReport:
    """Copy a store, or the `folders` with these IDs, and bring an earlier copy up to date.

    What cannot be copied is in the report and does not stop the rest. Raises UsageError if the target is another store
    or a gateway runs on it. Raises StoreError.
    """
    report = ReplicationReport()
    await _copy_store_record(source, target)
    await check_no_gateway_runs(target)
    found = await read_folders(source)
    wanted = [record for record in found if not folders or record.folder_id in folders]
    for folder_id in folders:
        if folder_id not in {record.folder_id for record in wanted}:
            raise NoSuchFolder(f"the store has no folder {folder_id!r}")
    report.failed += found.unreadable if not folders else []
    for place in (layout.IDENTITIES, layout.PEERS, layout.QUOTAS, layout.RETENTION, layout.HISTORY):
        await copy_small(source, target, place, OF_STORE[place])
    copier = ObjectCopier(source, target, memory, settings)
    for record in wanted:
        if record.removed:
            continue
        try:
            await FolderCopy(source, target, record, copier, settings, report, progress).run()
            report.folders += 1
        except DataError as error:
            report.failed.append(Problem(f"folder {record.folder_id!r}", str(error)))
    return report


async def _copy_store_record(source: Bucket, target: Bucket) -> None:
    record = await read_record(source, layout.STORE, StoreRecord.from_json)
    if record is None:
        raise UsageError("there is no store to copy")
    there = await read_record(target, layout.STORE, StoreRecord.from_json)
    if there is not None and there.store_id != record.store_id:
        raise UsageError("the target is another store: choose an empty bucket or prefix, or an earlier copy")
    if there is None and [prefix async for prefix in target.list_directories(layout.FOLDERS)]:
        raise UsageError("the target has folders, and no record of a store: choose an empty bucket or prefix")
    if there is None or there.version < record.version <= VERSION:
        await write_record(target, layout.STORE, record.to_json())
