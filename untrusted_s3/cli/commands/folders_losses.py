"""`untrusted-s3 folders losses`: what the log of a folder has lost for good."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime

import click
import uvloop

from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import counted, print_json, print_table, report_unreadable
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import NoSuchFolder
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossReader, forget_losses
from untrusted_s3.store.records import FolderRecord, read_record


@click.command("losses")
@click.argument("folder_id", metavar="FOLDER")
@option(
    "--clear",
    key="folders-losses-clear",
    is_flag=True,
    help="You have taken note: delete the records, so that gateways no longer show these losses.",
)
@json_option
@store_options
@common_options
def losses(folder_id: str, clear: bool, as_json: bool, store: StoreOptions) -> None:
    """List what the log of a folder has lost for good.

    When the store has lost or damaged a part of a folder's log, a gateway heals the log, and writes down what nobody
    knows any more. What devices still have of it comes back by itself. Gateways show the losses in their status until
    you have taken note of them: --clear lists them once more and deletes these records, and nothing else. Gateways may
    run; they notice within a minute or so.
    """
    uvloop.run(_losses(store, folder_id, clear=clear, as_json=as_json))


async def _losses(store: StoreOptions, folder_id: str, *, clear: bool, as_json: bool) -> None:
    async with open_store(store) as bucket:
        keys = FolderKeys.of(folder_id)
        reader = LossReader(bucket, keys)
        await reader.read()
        found, unreadable = reader.found, reader.unreadable
        if not found and not unreadable and await read_record(bucket, keys.record, FolderRecord.from_json) is None:
            raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        if as_json:
            print_json([{"key": bucket.location.prefix + key, **record.to_json()} for key, record in found.items()])
        else:
            said: dict[Hashable, tuple[str, str]] = {}
            for record in found.values():
                time = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="seconds")
                for what, text in record.texts(keys).items():
                    said.setdefault(what, (time, text))
            print_table(("FOUND", "LOST"), list(said.values()))
        if clear:
            count = await forget_losses(bucket, keys, [*found, *reader.damaged])
            deleted = set(filter(keys.is_loss, reader.damaged))
            unreadable = [problem for problem in unreadable if problem.path not in deleted]
            click.echo(f"noted: {counted(count, 'record')} deleted", err=True)
    report_unreadable(unreadable)
