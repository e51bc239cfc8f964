"""`untrusted-s3 versions`: what earlier versions of a path can be restored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import uvloop

from untrusted_s3.cli.commands.ls import entry_json, iso_text, time_text
from untrusted_s3.cli.key_holder import KeyHolderOptions, key_holder_options, opened_folder
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, store_options
from untrusted_s3.cli.output import print_json, print_table
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import DataError, UsageError
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.vault.entry import Version

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command()
@click.argument("path")
@json_option
@key_holder_options
@store_options
@common_options
@click.pass_context
def versions(
    context: click.Context, path: str, as_json: bool, key_holder: KeyHolderOptions, store: StoreOptions
) -> None:
    """List the versions of a file that can be restored.

    The oldest comes first. FROM is the time from which on the folder had the version: give it, or a later one, to
    --as-of of `cat` and `restore`. The oldest version may have none, if the history begins later. Versions that a
    device had while others had another one are marked as conflicts.
    """
    found = uvloop.run(_versions(path, key_holder, store))
    if not found:
        raise UsageError(f"there is no {path!r} in the history of the folder")
    if as_json:
        print_json([_json(version) for version in found])
    else:
        print_table(("FROM", "SIZE", "MODIFIED", ""), [_row(version) for version in found])
    if any(_damage(version) is not None for version in found):
        context.exit(DataError.exit_code)


async def _versions(path: str, key_holder: KeyHolderOptions, store: StoreOptions) -> list[Version]:
    async with open_store(store) as bucket, opened_folder(bucket, key_holder) as folder:
        return await folder.versions(path.strip("/").removeprefix("./"))


def _damage(version: Version) -> str | None:
    return getattr(version.entry, "reason", None)


def _row(version: Version) -> tuple[object, ...]:
    since = time_text(_nanoseconds(version.since)) if version.since is not None else "before the history"
    entry: Any = version.entry
    if (damage := _damage(version)) is not None:
        return since, "", "", printable(f"damaged: {damage}")
    notes = [str(entry.kind)] * (entry.kind != "file") + ["deleted"] * entry.deleted
    notes += ["conflict"] * version.is_dissent
    size = f"{entry.size:,}" if not entry.deleted else ""
    return since, size, time_text(entry.modified_ns) if not entry.deleted else "", ", ".join(notes)


def _json(version: Version) -> dict[str, Any]:
    since = iso_text(_nanoseconds(version.since)) if version.since is not None else None
    entry: Any = version.entry
    damage = _damage(version)
    what = entry_json(entry) if damage is None else {"path": entry.path, "damaged": damage}
    return {"from": since, "conflict": version.is_dissent, **what}


def _nanoseconds(moment: datetime) -> int:
    passed = moment - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000_000 + passed.microseconds * 1000
