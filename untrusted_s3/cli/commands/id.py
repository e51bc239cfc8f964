"""`untrusted-s3 id`: print the gateway's device ID."""

from __future__ import annotations

import sys

import click
import uvloop

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.identity import IdentityOptions, identity_options
from untrusted_s3.cli.options import StoreOptions, common_options, option, single_writer_option, store_options
from untrusted_s3.cli.store import open_store
from untrusted_s3.cli.terminal import qr_code


@click.command("id")
@option("--qr", is_flag=True, help="Show the QR code too, on standard error.")
@single_writer_option
@store_options
@identity_options
@common_options
def device_id(identity: IdentityOptions, store: StoreOptions, qr: bool, single_writer: bool) -> None:
    """Print this gateway's device ID.

    The identity is made at first use; a terminal is told so. The store is used only if the identity is in it.
    """
    if sys.stderr.isatty() and not identity.in_store and identity.local_device_id() is None:
        click.echo(f"a new identity, made in {identity.directory.absolute()}", err=True)
    own = uvloop.run(_read(store, identity, single_writer)) if identity.in_store else identity.open_local().device_id
    if qr:
        click.echo(qr_code(str(own), sys.stderr.encoding), err=True, nl=False)
    click.echo(str(own))


async def _read(store: StoreOptions, identity: IdentityOptions, single_writer: bool) -> DeviceID:
    async with open_store(store, single_writer=single_writer) as bucket:
        return (await identity.open(bucket)).device_id
