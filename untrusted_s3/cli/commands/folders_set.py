"""`untrusted-s3 folders set`: change the settings of a folder, which all gateways on the store follow."""

from __future__ import annotations

from dataclasses import replace

import click
import uvloop

from untrusted_s3.cli.options import StoreOptions, common_options, option, store_options
from untrusted_s3.cli.quotas import quotas_to_change, report_quota, with_quota
from untrusted_s3.cli.size import Quota, QuotaType
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import NoSuchFolder
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.quotas import write_quotas
from untrusted_s3.store.records import FolderRecord, read_record


@click.command("set")
@click.argument("folder_id", metavar="FOLDER")
@option(
    "--quota",
    key="folders-set-quota",
    type=QuotaType(),
    required=True,
    metavar="SIZE|none",
    help="The most bytes of the folder's files, such as 100GiB; none: no quota.",
)
@store_options
@common_options
def set_(folder_id: str, quota: Quota, store: StoreOptions) -> None:
    """Change the settings of a folder.

    The quota is for the encrypted size of the files that the folder has now; earlier versions do not count. Over it,
    files that would need more room wait. What is there stays and is served, and deletions, directories and changes of
    metadata still come in. When files are deleted or the quota is raised, what waits comes in by itself. Running
    gateways follow within a minute; those in which nothing happens show it later.
    """
    uvloop.run(_set(store, folder_id, quota))


async def _set(store: StoreOptions, folder_id: str, quota: Quota) -> None:
    async with open_store(store) as bucket:
        record = await read_record(bucket, FolderKeys.of(folder_id).record, FolderRecord.from_json)
        if record is None or record.removed:
            raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        quotas = await quotas_to_change(bucket)
        await write_quotas(bucket, replace(quotas, folders=with_quota(quotas.folders, folder_id, quota)))
    report_quota(folder_id, quota)
