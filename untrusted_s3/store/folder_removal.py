"""The removal of a folder with everything that the store has of it."""

from __future__ import annotations

import asyncio
import dataclasses

from untrusted_s3.errors import NoSuchFolder, UsageError
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import HEARTBEAT_LIFETIME
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_nodes
from untrusted_s3.store.probe import check_deletion
from untrusted_s3.store.records import FolderRecord, read_record, write_record

_DEFAULTS = StoreSettings()


async def check_no_gateway_runs(bucket: Bucket) -> None:
    """Raise UsageError if a gateway's heartbeat is recent.

    A gateway that runs would go on with what it knows of a removed folder.
    """
    async for node in list_nodes(bucket):
        if node.age < HEARTBEAT_LIFETIME:
            raise UsageError(
                f"the gateway {node.device_id} runs, or ran {node.age:.0f} s ago: stop all gateways on this store "
                f"first. After a crash, wait until {HEARTBEAT_LIFETIME:.0f} s have passed"
            )


async def remove_folder(bucket: Bucket, folder_id: str, settings: StoreSettings = _DEFAULTS) -> int:
    """Delete the record, the log, the checkpoints and the objects of a folder; return the number of keys deleted.

    No gateway may run. The record is deleted last and says until then that the folder is being removed, so that no
    gateway opens a part of it. After an interruption the removal can be called again. Raises NoSuchFolder,
    DeletionDenied, before anything is changed, or another StoreError.
    """
    keys = FolderKeys.of(folder_id)
    record = await read_record(bucket, keys.record, FolderRecord.from_json)
    if record is None:
        raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
    await check_deletion(bucket)
    await write_record(bucket, keys.record, dataclasses.replace(record, removed=True).to_json())
    async for upload in bucket.list_multipart_uploads(keys.base):
        await bucket.abort_multipart_upload(upload.key, upload.upload_id)
    count = 0
    deletions: set[asyncio.Task[None]] = set()
    try:
        async for item in bucket.list(keys.base):
            if item.key == keys.record:
                continue
            deletions.add(asyncio.create_task(bucket.delete(item.key)))
            count += 1
            if len(deletions) >= settings.concurrent_deletions:
                done, deletions = await asyncio.wait(deletions, return_when=asyncio.FIRST_COMPLETED)
                for deletion in done:
                    deletion.result()
        await asyncio.gather(*deletions)
    finally:
        for deletion in deletions:
            deletion.cancel()
        await asyncio.gather(*deletions, return_exceptions=True)
    await bucket.delete(keys.record)
    return count + 1
