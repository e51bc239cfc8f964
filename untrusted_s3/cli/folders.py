"""`untrusted-s3 folders`: what the store holds."""

from __future__ import annotations

import click
import uvloop

from untrusted_s3.cli.options import StoreOptions, common_options, json_option, store_options
from untrusted_s3.cli.output import print_json, print_table
from untrusted_s3.cli.store import open_store
from untrusted_s3.store import records
from untrusted_s3.store.layout import FolderKeys


@click.group()
def folders() -> None:
    """The folders in the store."""


@folders.command("list")
@json_option
@store_options
@common_options
def list_folders(store: StoreOptions, as_json: bool) -> None:
    """List the folders; no gateway is needed."""
    uvloop.run(_list(store, as_json))


async def _list(store: StoreOptions, as_json: bool) -> None:
    async with open_store(store) as bucket:
        found = await records.read_folders(bucket)
        prefix = bucket.location.prefix
    rows = [(folder.folder_id, folder.label, prefix + FolderKeys.of(folder.folder_id).base) for folder in found]
    if as_json:
        print_json([dict(zip(("id", "label", "prefix"), row, strict=True)) for row in rows])
    else:
        print_table(("FOLDER", "LABEL", "KEY PREFIX"), rows)
