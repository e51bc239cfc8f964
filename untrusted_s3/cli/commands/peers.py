"""`untrusted-s3 peers`: list, accept, change and remove the devices that may connect."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from typing import Any

import click
import uvloop

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.commands.peers_set import set_
from untrusted_s3.cli.identity import IdentityOptions, identity_options
from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    json_option,
    option,
    single_writer_option,
    store_options,
)
from untrusted_s3.cli.output import print_json, print_table, report_unreadable
from untrusted_s3.cli.quotas import quotas_to_show
from untrusted_s3.cli.size import quota_text
from untrusted_s3.cli.store import open_store
from untrusted_s3.connections.registry import SCHEMES
from untrusted_s3.errors import UsageError
from untrusted_s3.store import layout, records
from untrusted_s3.store.records import PeerRecord


@click.group()
def peers() -> None:
    """List, accept, change and remove devices.

    Running gateways follow within half a minute. A newly accepted device that connects is let in at once.
    """


peers.add_command(set_)


@peers.command("list")
@json_option
@store_options
@common_options
def list_peers(store: StoreOptions, as_json: bool) -> None:
    """List the accepted devices."""
    uvloop.run(_list(store, as_json))


async def _list(store: StoreOptions, as_json: bool) -> None:
    async with open_store(store) as bucket:
        found = await records.read_peers(bucket)
        quotas, problems = await quotas_to_show(bucket)
        found.unreadable.extend(problems)
    found.sort(key=lambda peer: str(peer.device_id))
    if as_json:
        print_json([peer.to_json() | {"quota": quotas.devices.get(peer.device_id)} for peer in found])
    else:
        rows = [
            (
                peer.device_id,
                peer.name,
                " ".join(peer.addresses),
                " ".join(peer.share),
                ("read" if peer.read_only else "read, write") + (" (untrusted)" if peer.untrusted else ""),
                "all" if peer.folders is None else " ".join(peer.folders),
                quota_text(quotas.devices.get(peer.device_id)),
            )
            for peer in found
        ]
        print_table(("DEVICE ID", "NAME", "ADDRESSES", "SHARE", "MAY", "FOLDERS", "QUOTA"), rows)
    report_unreadable(found.unreadable)


@peers.command("add")
@click.argument("device_id", type=DeviceID.parse)
@option(
    "--address",
    "addresses",
    key="peers-add-address",
    multiple=True,
    metavar="tcp://HOST:PORT",
    help="Where to dial the device; may be repeated. Without an address, the device has to dial the gateway.",
)
@option("--name", key="peers-add-name", help="A name for the device.")
@option(
    "--share",
    key="peers-add-share",
    multiple=True,
    metavar="FOLDER",
    help="ID of a folder to offer before the device does, as a new untrusted device needs; may be repeated.",
)
@option(
    "--read-only/--read-write",
    "read_only",
    key="peers-add-read-only",
    default=None,
    help="Whether the device only reads: it gets everything, and nothing that it announces is taken.  [default: it may"
    " write]",
)
@option(
    "--untrusted/--trusted",
    "untrusted",
    key="peers-add-untrusted",
    default=None,
    help="Whether the device has no password and holds encrypted data, as this one. It is then refused if it claims to"
    " encrypt, and is never asked before a trusted device.  [default: as the device says]",
)
@option(
    "--folders",
    "folder_lists",
    key="peers-add-folders",
    multiple=True,
    metavar="FOLDER[,FOLDER…]",
    help="IDs of the only folders that the device may share or create; may be repeated. An ID with a comma needs"
    " double quotes around it: '\"a,b\",c'.  [default: all]",
)
@option(
    "--all-folders",
    key="peers-add-all-folders",
    is_flag=True,
    help="The device may share all folders again, and create new ones.",
)
@single_writer_option
@store_options
@identity_options
@common_options
def add_peer(
    device_id: DeviceID,
    addresses: tuple[str, ...],
    name: str | None,
    share: tuple[str, ...],
    read_only: bool | None,
    untrusted: bool | None,
    folder_lists: tuple[str, ...],
    all_folders: bool,
    single_writer: bool,
    store: StoreOptions,
    identity: IdentityOptions,
) -> None:
    """Accept a device, or change an accepted one.

    Of an accepted device, what no option names stays. If the device is connected, the change ends its connection, and
    it comes back.

    Give --read-only to a device that you do not trust with the content of the copy, such as somebody else's untrusted
    device. Gateways before this option exists ignore --read-only and --folders, and drop them when they change a
    device: let all gateways on the store have one version.
    """
    if all_folders and folder_lists:
        raise UsageError("--folders and --all-folders contradict each other")
    folders = tuple(folder for row in csv.reader(folder_lists) for folder in row)
    if not all(folders):
        raise UsageError("--folders: a folder ID is empty")
    for address in addresses:
        SCHEMES.parse(address)
    if not identity.in_store:
        _refuse_own(device_id, identity.local_device_id())

    def changed(before: PeerRecord) -> PeerRecord:
        changes: dict[str, Any] = {
            "name": name,
            "addresses": addresses or None,
            "share": share or None,
            "read_only": read_only,
            "untrusted": untrusted,
            "folders": folders or None,
        }
        after = dataclasses.replace(before, **{key: value for key, value in changes.items() if value is not None})
        if all_folders:
            after = dataclasses.replace(after, folders=None)
        for folder_id in after.share:
            if not after.may_share(folder_id):
                raise UsageError(f"{folder_id} cannot be offered with --share: --folders does not have it")
        return after

    uvloop.run(_add(store, identity, device_id, changed, single_writer=single_writer))


def _refuse_own(device_id: DeviceID, own: DeviceID | None) -> None:
    if device_id == own:
        raise UsageError("that is this gateway's own device ID: give the one that Syncthing shows (Actions > Show ID)")


async def _add(
    store: StoreOptions,
    identity: IdentityOptions,
    device_id: DeviceID,
    changed: Callable[[PeerRecord], PeerRecord],
    *,
    single_writer: bool,
) -> None:
    key = layout.peer_key(device_id)
    async with open_store(store, single_writer=single_writer) as bucket:
        if identity.in_store:
            _refuse_own(device_id, await identity.stored_device_id(bucket))
        await records.open_store(bucket)
        before = await records.read_record(bucket, key, PeerRecord.from_json) or PeerRecord(device_id)
        await records.write_record(bucket, key, changed(before).to_json())
    click.echo(f"accepted {device_id}", err=True)


@peers.command("remove")
@click.argument("device_id", type=DeviceID.parse)
@store_options
@common_options
def remove_peer(device_id: DeviceID, store: StoreOptions) -> None:
    """Stop accepting a device. Its data stay."""
    uvloop.run(_remove(store, device_id))


async def _remove(store: StoreOptions, device_id: DeviceID) -> None:
    key = layout.peer_key(device_id)
    async with open_store(store) as bucket:
        if await bucket.size(key) is None:
            raise UsageError(f"{device_id} is not among the accepted devices (untrusted-s3 peers list)")
        await bucket.delete(key)
    click.echo(f"removed {device_id}", err=True)
