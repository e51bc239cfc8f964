"""`untrusted-s3 folders`: list, change, import, export and remove the folders in the store, take them back after an
attack, and tell what they have lost."""

from __future__ import annotations

import sys

import click
import uvloop

from untrusted_s3.cli.commands.folders_export import export
from untrusted_s3.cli.commands.folders_import import import_
from untrusted_s3.cli.commands.folders_losses import losses
from untrusted_s3.cli.commands.folders_retract import retract
from untrusted_s3.cli.commands.folders_rewind import rewind
from untrusted_s3.cli.commands.folders_set import set_
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import print_json, print_table, report_unreadable
from untrusted_s3.cli.quotas import quotas_to_show
from untrusted_s3.cli.size import quota_text
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import UsageError
from untrusted_s3.store import records
from untrusted_s3.store.folder_removal import check_no_gateway_runs, remove_folder
from untrusted_s3.store.layout import FolderKeys


@click.group()
def folders() -> None:
    """List, change, import, export, remove and take back folders."""


folders.add_command(export)
folders.add_command(import_)
folders.add_command(losses)
folders.add_command(retract)
folders.add_command(rewind)
folders.add_command(set_)


@folders.command("list")
@json_option
@store_options
@common_options
def list_folders(store: StoreOptions, as_json: bool) -> None:
    """List the folders. No gateway needs to run."""
    uvloop.run(_list(store, as_json))


async def _list(store: StoreOptions, as_json: bool) -> None:
    async with open_store(store) as bucket:
        found = await records.read_folders(bucket)
        quotas, problems = await quotas_to_show(bucket)
        found.unreadable.extend(problems)
        prefix = bucket.location.prefix
    rows = [
        (
            folder.folder_id,
            folder.label,
            prefix + FolderKeys.of(folder.folder_id).base,
            quotas.folders.get(folder.folder_id),
        )
        for folder in found
    ]
    if as_json:
        print_json([dict(zip(("id", "label", "prefix", "quota"), row, strict=True)) for row in rows])
    else:
        print_table(("FOLDER", "LABEL", "KEY PREFIX", "QUOTA"), [(*row[:3], quota_text(row[3])) for row in rows])
    report_unreadable(found.unreadable)


@folders.command("remove")
@click.argument("folder_id", metavar="FOLDER")
@option("--yes", key="folders-remove-yes", is_flag=True, help="Do not ask.")
@store_options
@common_options
def remove(folder_id: str, yes: bool, store: StoreOptions) -> None:
    """Delete a folder from the store, with all its data and history. No gateway may run."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"folders remove deletes all data of {folder_id!r} for good: add --yes if you mean it")
        click.confirm(f"Delete all data of the folder {folder_id!r} for good?", abort=True)
    uvloop.run(_remove(store, folder_id))


async def _remove(store: StoreOptions, folder_id: str) -> None:
    async with open_store(store) as bucket:
        await check_no_gateway_runs(bucket)
        count = await remove_folder(bucket, folder_id, store.settings.store)
    click.echo(f"removed {folder_id}: {count} objects deleted", err=True)
