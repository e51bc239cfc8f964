"""`untrusted-s3 id`: the device ID."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from untrusted_s3.cli.options import common_options, data_option, identity_option, option
from untrusted_s3.cli.terminal import qr_code
from untrusted_s3.node.identity import load_or_create


@click.command("id")
@option("--qr", is_flag=True, help="Also the QR code, on standard error.")
@data_option
@identity_option
@common_options
def device_id(identity: Path, data: Path, qr: bool) -> None:
    """Print this gateway's device ID; it is made at first use."""
    own = load_or_create(identity).device_id
    if qr:
        click.echo(qr_code(str(own), sys.stderr.encoding), err=True, nl=False)
    click.echo(str(own))
