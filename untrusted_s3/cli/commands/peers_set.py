"""`untrusted-s3 peers set`: change what does not end the connection of a device; all gateways on the store follow."""

from __future__ import annotations

from dataclasses import replace

import click
import uvloop

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.options import StoreOptions, common_options, option, store_options
from untrusted_s3.cli.quotas import quotas_to_change, report_quota, with_quota
from untrusted_s3.cli.size import Quota, QuotaType
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import UsageError
from untrusted_s3.store import layout
from untrusted_s3.store.quotas import write_quotas


@click.command("set")
@click.argument("device_id", type=DeviceID.parse)
@option(
    "--quota",
    key="peers-set-quota",
    type=QuotaType(),
    required=True,
    metavar="SIZE|none",
    help="The most bytes of files from the device in all folders together, such as 100GiB; none: no quota.",
)
@store_options
@common_options
def set_(device_id: DeviceID, quota: Quota, store: StoreOptions) -> None:
    """Change the settings of a device. A device that is connected stays so.

    The quota is for the encrypted size of the files whose present version the store has got from the device, in all
    folders; earlier versions do not count. Over it, files of the device that would need more room wait. What is there
    stays and is served, and deletions, directories and changes of metadata still come in. When files are deleted or the
    quota is raised, what waits comes in by itself. Running gateways follow within a minute; those in which nothing
    happens show it later.
    """
    uvloop.run(_set(store, device_id, quota))


async def _set(store: StoreOptions, device_id: DeviceID, quota: Quota) -> None:
    async with open_store(store) as bucket:
        # A device that is not accepted any more may still have a quota.
        if quota.size is not None and await bucket.size(layout.peer_key(device_id)) is None:
            raise UsageError(f"{device_id} is not among the accepted devices (untrusted-s3 peers list)")
        quotas = await quotas_to_change(bucket)
        await write_quotas(bucket, replace(quotas, devices=with_quota(quotas.devices, device_id, quota)))
    report_quota(device_id, quota)
