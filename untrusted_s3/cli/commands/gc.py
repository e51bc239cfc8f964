"""`untrusted-s3 gc`: delete what no folder's history needs any more."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    current_invocation,
    history_option,
    json_option,
    option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json, print_problems, print_table, size_text
from untrusted_s3.cli.progress import duration_text, shown_text
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_store
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, NoSuchFolder, StoreRefused, UsageError
from untrusted_s3.index.trimming import TrimPlan, plan_trim, trim
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.history import read_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_segments
from untrusted_s3.store.probe import check_deletion, remove_old_probes
from untrusted_s3.store.records import FolderRecord, read_folders
from untrusted_s3.store.retention import read_rules
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import Amount, Collected, GarbageCollector, GarbageSettings


@dataclass(frozen=True, slots=True)
class _Result:
    """What was done, or would be done, in a folder."""

    folder_id: str
    collected: Collected
    uploads: int = 0

    @property
    def garbage(self) -> Amount:
        """All that is not needed and is still there."""
        parts = (self.collected.due, self.collected.waiting, self.collected.found)
        return Amount(sum(part.objects for part in parts), sum(part.bytes for part in parts))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        done = self.collected
        return {
            "folder": self.folder_id,
            "objects": done.listed.to_json(),
            "garbage": self.garbage.to_json(),
            "due": done.due.to_json(),
            "waiting": done.waiting.to_json(),
            "found": done.found.to_json(),
            "deleted": done.deleted.to_json(),
            "uploads_aborted": self.uploads,
            "unknown": done.unknown,
            "next_in_seconds": round(done.next_in) if done.next_in is not None else None,
        }


@click.command()
@click.argument("folders", metavar="[FOLDER]...", nargs=-1)
@option("--delete", key="gc-delete", is_flag=True, help="Do it; without it, gc only says what there is to do.")
@history_option("How far back --as-of has to reach, if the store does not say it. Without --delete: what if it did.")
@json_option
@store_options
@common_options
@click.pass_context
def gc(
    context: click.Context, folders: tuple[str, ...], delete: bool, history: int, as_json: bool, store: StoreOptions
) -> None:
    """Delete what no folder's history needs any more.

    Without FOLDER, this is done in all folders. An object is garbage if nothing in the history names it: an earlier
    version of a file that is older than the history, or what an interrupted transfer has left. Garbage is deleted
    in two steps, so that no gateway that is about to use it again loses it. First it is written down in the store.
    What has been written down for a day, and is still not needed, is deleted by the next run. Gateways do all
    of this by themselves, slowly, unless they were started with --no-gc. Several may do it at once.

    Where gateways may not delete, run it from time to time with credentials that may.
    """
    is_given = context.get_parameter_source("history") is not ParameterSource.DEFAULT
    results, problems = run_interruptible(_gc(store, folders, _History(history, is_given), delete=delete))
    if as_json:
        unfinished = [dataclasses.asdict(problem) for problem in problems]
        print_json({"folders": [result.to_json() for result in results], "problems": unfinished})
    else:
        _print(results, deleted=delete)
    print_problems("not collected", problems)
    context.exit(DataError.exit_code if problems else 0)


@dataclass(frozen=True, slots=True)
class _History:
    """How many days of the history are kept by the options, and whether somebody has given them."""

    days: int
    is_given: bool

    async def of(self, bucket: Bucket, keys: FolderKeys, *, delete: bool) -> float:
        """Return how many seconds of a folder's history are kept. Raises UsageError, DataError and StoreError."""
        found = await read_history(bucket, keys)
        if found is None or (self.is_given and not delete):
            return self.days * DAY
        if self.is_given and self.days != found.days:
            raise UsageError(
                f"the store keeps {found.days} days of the history, not {self.days}: leave out --history, or change"
                " that with `untrusted-s3 keep --history`"
            )
        return found.seconds(bucket.now())


async def _gc(
    store: StoreOptions, wanted: tuple[str, ...], history: _History, *, delete: bool
) -> tuple[list[_Result], list[Problem]]:
    results: list[_Result] = []
    problems: list[Problem] = []
    async with open_store(store) as bucket:
        if delete:
            await check_deletion(bucket)
        records = await read_folders(bucket)
        known = {record.folder_id: record for record in records if not record.removed}
        for folder_id in wanted:
            if folder_id not in known:
                raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        problems += records.unreadable if not wanted else []
        for folder_id, record in known.items():
            if wanted and folder_id not in wanted:
                continue
            try:
                collected = await _collect(bucket, record, history, delete=delete)
                uploads = await _end_uploads(bucket, FolderKeys.of(folder_id)) if delete else 0
                results.append(_Result(folder_id, collected, uploads))
            except DataError as error:
                problems.append(Problem(folder_id, str(error)))
        if delete and not wanted:
            await remove_old_probes(bucket)
    return results, problems


async def _end_uploads(bucket: S3Bucket, keys: FolderKeys) -> int:
    """End uploads on which nobody works any more, where the store lists them and lets us."""
    try:
        return await abort_old_uploads(bucket, keys.base, Counters())
    except StoreRefused as error:
        click.echo(f"unfinished uploads stay: {error}", err=True)
        return 0


async def _collect(bucket: S3Bucket, record: FolderRecord, wanted: _History, *, delete: bool) -> Collected:
    keys = FolderKeys.of(record.folder_id)
    history = await wanted.of(bucket, keys, delete=delete)
    collector = GarbageCollector(bucket, keys, settings=GarbageSettings(deletions_per_second=0.0))

    def text() -> str:
        done = collector.result
        return f"{record.folder_id}: {done.listed.objects:,} objects looked at, {done.deleted.objects:,} deleted"

    keep = await read_rules(bucket, keys)

    async def leaving(ages: dict[int, float]) -> TrimPlan:
        return await plan_trim(bucket, keys, ages, history, keep)

    live_line = current_invocation().live_line
    assert live_line is not None
    async with shown_text(text, live_line):
        if not delete:
            return await collector.look(leaving)
        end = (await list_segments(bucket, keys)).last
        await trim(bucket, keys, history, known=end, keep=keep)
        return await collector.collect(always=True)


def _print(results: list[_Result], *, deleted: bool) -> None:
    rows = [
        (
            result.folder_id,
            result.collected.listed.objects,
            size_text(result.collected.listed.bytes),
            result.garbage.objects,
            size_text(result.garbage.bytes),
        )
        for result in results
    ]
    print_table(("FOLDER", "OBJECTS", "SIZE", "GARBAGE", "SIZE"), rows)
    total = {name: Amount() for name in ("deleted", "due", "found", "waiting")}
    for result in results:
        for name, amount in total.items():
            part: Amount = getattr(result.collected, name)
            amount.objects += part.objects
            amount.bytes += part.bytes
    if deleted:
        click.echo(f"{_text(total['deleted'])} deleted", err=True)
        if uploads := sum(result.uploads for result in results):
            click.echo(f"{counted(uploads, 'unfinished upload')} ended", err=True)
        waiting = [result.collected.next_in for result in results if result.collected.next_in is not None]
        if total["found"].objects:
            click.echo(f"{_text(total['found'])} written down; a run in a day deletes that", err=True)
        if waiting:
            click.echo(f"{_text(total['waiting'])} waiting, the first for {duration_text(min(waiting))}", err=True)
    else:
        click.echo(f"{_text(total['due'])} would be deleted now", err=True)
        click.echo(f"{_text(total['found'])} would be written down, and deleted in a day at the earliest", err=True)
        if total["waiting"].objects:
            click.echo(f"{_text(total['waiting'])} written down less than a day ago", err=True)
        if total["due"].objects or total["found"].objects:
            click.echo("nothing was changed; --delete does it", err=True)


def _text(amount: Amount) -> str:
    return f"{counted(amount.objects, 'object')} ({size_text(amount.bytes)})"
