"""`untrusted-s3 peers`: list, accept and remove the devices that may connect."""

from __future__ import annotations

import click
import uvloop

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.identity import IdentityOptions, identity_options
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import print_json, print_table, report_unreadable
from untrusted_s3.cli.store import open_store
from untrusted_s3.connections.registry import SCHEMES
from untrusted_s3.errors import UsageError
from untrusted_s3.store import layout, records
from untrusted_s3.store.records import PeerRecord


@click.group()
def peers() -> None:
    """List, accept and remove devices.

    Running gateways follow within half a minute. A newly accepted device that connects is let in at once.
    """


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
    found.sort(key=lambda peer: str(peer.device_id))
    if as_json:
        print_json([peer.to_json() for peer in found])
    else:
        rows = [(peer.device_id, peer.name, " ".join(peer.addresses), " ".join(peer.share)) for peer in found]
        print_table(("DEVICE ID", "NAME", "ADDRESSES", "SHARE"), rows)
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
@store_options
@identity_options
@common_options
def add_peer(
    device_id: DeviceID,
    addresses: tuple[str, ...],
    name: str | None,
    share: tuple[str, ...],
    store: StoreOptions,
    identity: IdentityOptions,
) -> None:
    """Accept a device, or change an accepted one.

    Of an accepted device, what no option names stays.
    """
    for address in addresses:
        SCHEMES.parse(address)
    if not identity.in_store:
        _refuse_own(device_id, identity.local_device_id())
    uvloop.run(_add(store, identity, device_id, addresses, name, share))


def _refuse_own(device_id: DeviceID, own: DeviceID | None) -> None:
    if device_id == own:
        raise UsageError("that is this gateway's own device ID: give the one that Syncthing shows (Actions > Show ID)")


async def _add(
    store: StoreOptions,
    identity: IdentityOptions,
    device_id: DeviceID,
    addresses: tuple[str, ...],
    name: str | None,
    share: tuple[str, ...],
) -> None:
    key = layout.peer_key(device_id)
    async with open_store(store) as bucket:
        if identity.in_store:
            _refuse_own(device_id, await identity.stored_device_id(bucket))
        await records.open_store(bucket)
        before = await records.read_record(bucket, key, PeerRecord.from_json) or PeerRecord(device_id)
        peer = PeerRecord(
            device_id,
            before.name if name is None else name,
            addresses or before.addresses,
            share or before.share,
        )
        await records.write_record(bucket, key, peer.to_json())
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
