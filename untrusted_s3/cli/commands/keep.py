"""`untrusted-s3 keep`: which earlier states are kept beyond the history."""

from __future__ import annotations

from typing import Any

import click
import uvloop

from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import counted, print_json, print_table
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import NoSuchFolder
from untrusted_s3.settings import MIN_HISTORY
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.history import MAX_HISTORY_DAYS, read_history, write_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_kept
from untrusted_s3.store.records import read_folders
from untrusted_s3.store.retention import KeepRules, read_rules, write_rules
from untrusted_s3.units import DAY


@click.command()
@click.argument("rules", metavar="[RULES]...", nargs=-1)
@option("--folder", key="keep-folder", metavar="FOLDER", help="The rules of this folder, in place of the store's.")
@option(
    "--history",
    key="keep-history",
    type=click.IntRange(min=int(MIN_HISTORY // DAY), max=MAX_HISTORY_DAYS),
    metavar="DAYS",
    help="How long the whole history is kept: any moment of that can be restored.",
)
@json_option
@store_options
@common_options
def keep(rules: tuple[str, ...], folder: str | None, history: int | None, as_json: bool, store: StoreOptions) -> None:
    """Show or set how much of the history is kept.

    RULES are for example: daily 7, weekly 5, monthly 12, yearly 3. So the last state of each of the last 7 days with
    any, of the last 5 weeks and so on stays, with all data that it needs; `nothing` keeps none beyond the history.
    They are in the store, for all gateways; those of a folder are in place of those of the store. Only what was still
    there when they were set can be kept.

    --as-of then reaches further back: before the history, it gives the last state that was kept before the time. For a
    day after the rules were changed nothing that was kept is deleted, and you can change them again. So it is with
    --history, which holds for all gateways too.
    """
    wanted = KeepRules.parse(" ".join(rules)) if rules else None
    shown = uvloop.run(_keep(store, wanted, history, folder))
    if as_json:
        print_json(shown)
    else:
        rows = [
            (
                one["folder"] or "(the store)",
                counted(one["history_days"], "day") if one["history_days"] else "by the gateways",
                one["rules_text"],
                one["states"] if one["folder"] else "",
            )
            for one in shown
        ]
        print_table(("FOLDER", "HISTORY", "KEEPS", "STATES"), rows)


async def _keep(
    store: StoreOptions, wanted: KeepRules | None, days: int | None, folder: str | None
) -> list[dict[str, Any]]:
    async with open_store(store) as bucket:
        folders = [record.folder_id for record in await read_folders(bucket) if not record.removed]
        if folder is not None and folder not in folders:
            raise NoSuchFolder(f"there is no folder {folder!r} in this store")
        if wanted is not None:
            await write_rules(bucket, FolderKeys.of(folder) if folder is not None else None, wanted)
        if days is not None:
            await write_history(bucket, FolderKeys.of(folder) if folder is not None else None, days)
        shown = [await _shown(bucket, None)] if folder is None else []
        for folder_id in folders if folder is None else [folder]:
            shown.append(await _shown(bucket, folder_id))
        return shown


async def _shown(bucket: Bucket, folder_id: str | None) -> dict[str, Any]:
    keys = FolderKeys.of(folder_id) if folder_id is not None else None
    found, history = await read_rules(bucket, keys), await read_history(bucket, keys)
    return {
        "folder": folder_id,
        "rules": found.rules.to_json(),
        "rules_text": str(found.rules),
        "own_rules": found.is_own,
        "history_days": history.days if history is not None else None,
        "own_history": history is not None and history.is_own,
        "states": len(await list_kept(bucket, keys)) if keys is not None else 0,
    }
