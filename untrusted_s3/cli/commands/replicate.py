"""`untrusted-s3 replicate`: copy the store into another bucket."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import click

from untrusted_s3.cli.options import (
    StoreOptions,
    buffer_memory_option,
    common_options,
    current_invocation,
    json_option,
    option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json, print_problems, size_text
from untrusted_s3.cli.progress import shown_progress
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import FAILED, SUCCESS, UsageError
from untrusted_s3.progress import Progress
from untrusted_s3.store.connection import profile_credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import MIB

if TYPE_CHECKING:
    from untrusted_s3.replication.folder_copy import ReplicationReport


@click.command("replicate")
@click.argument("target", metavar="s3://BUCKET[/PREFIX]", type=StoreLocation.parse)
@option("--to-endpoint-url", metavar="URL", help="The S3 server of the copy, if not that of the store.")
@option(
    "--to-profile",
    metavar="NAME",
    help="The profile of the AWS tools with the credentials for the copy, if not those for the store.",
)
@option(
    "--only",
    "folders",
    key="replicate-only",
    metavar="FOLDER",
    multiple=True,
    help="Copy only the folder with this ID; may be repeated.",
)
@buffer_memory_option("Memory for data on their way.")
@json_option
@store_options
@common_options
@click.pass_context
def replicate_(
    context: click.Context,
    target: StoreLocation,
    to_endpoint_url: str | None,
    to_profile: str | None,
    folders: tuple[str, ...],
    buffer_memory: int,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Copy the store into another bucket, object by object as it is. Needs no password.

    The copy is a store of its own: restore, verify, check and serve take it. Gateways on the store may run meanwhile;
    the copy is whole at any moment, also if the command is interrupted. The same command again copies what is new, and
    goes on after an interruption. Each object is compared with the checksum in the log on its way.

    Accepted devices, sealed identities, quotas and the rules and states of `keep` are copied too; devices that were
    removed are removed from the copy. Objects are never deleted from the copy, and its credentials need not be allowed
    to delete. If a gateway has served the copy, it goes its own way, and the command leaves it
    alone. The exit code is 1 if something is damaged in the store and so was not copied.
    """
    if target == store.location and to_endpoint_url in (None, store.endpoint_url):
        raise UsageError("the copy would be the store itself: choose another bucket or prefix")
    report = run_interruptible(
        _replicate(store, target, to_endpoint_url or store.endpoint_url, to_profile, folders, buffer_memory * MIB)
    )
    if as_json:
        print_json({"ok": not report.failed, **dataclasses.asdict(report)})
    print_problems("not copied", report.failed)
    parts = [f"{counted(report.objects, 'object')} ({size_text(report.bytes)})"]
    parts += [f"{report.there:,} there already"] if report.there else []
    parts += [f"{counted(report.segments, 'log segment')}, {counted(report.checkpoints, 'checkpoint')}"]
    parts += [counted(report.states, "kept state")] if report.states else []
    parts += [f"{report.deleted:,} trimmed"] if report.deleted else []
    click.echo(f"copied of {counted(report.folders, 'folder')}: {', '.join(parts)}", err=True)
    if report.left:
        what = f"{report.left:,} old segments and checkpoints of the copy stay"
        click.echo(f"{what}: its credentials may not delete. They do no harm", err=True)
    context.exit(FAILED if report.failed else SUCCESS)


async def _replicate(
    store: StoreOptions,
    location: StoreLocation,
    endpoint_url: str | None,
    profile: str | None,
    folders: tuple[str, ...],
    memory: int,
) -> ReplicationReport:
    # Imported here: it takes a while.
    from untrusted_s3.replication.replication import replicate

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_store(store))
        # No other program may write to the copy, so it need not know conditional writes.
        settings = dataclasses.replace(store.settings.store, conditional_writes=False)
        credentials = profile_credentials(profile) if profile is not None else None
        target = await S3Bucket.open(
            location, endpoint_url, credentials, create_bucket=store.create_bucket, settings=settings
        )
        stack.push_async_callback(target.close)
        progress = Progress()
        if live_line is not None:
            await stack.enter_async_context(shown_progress(progress, "copied", live_line))
        return await replicate(source, target, folders, store.settings, memory, progress)
