"""`untrusted-s3 folders export`: write a folder to a directory, encrypted."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from untrusted_s3.cli.key_holder import chosen_folder, parse_time
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
from untrusted_s3.errors import NotRestored
from untrusted_s3.index.history import load_as_of, load_newest, to_time_ms
from untrusted_s3.index.state import FolderState
from untrusted_s3.progress import Progress
from untrusted_s3.settings import ReadSettings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import MIB

if TYPE_CHECKING:
    from datetime import datetime

    from untrusted_s3.native_disk.exporting import ExportReport


@click.command("export")
@click.argument("directory", type=click.Path(path_type=Path))
@option("--folder", metavar="ID", help="The folder's ID in Syncthing; needed if the store has several folders.")
@option(
    "--as-of",
    metavar="TIME",
    help="The folder as it was then: 2026-11-01 or 2026-11-01T12:00, local time unless it ends in Z or +01:00.",
)
@buffer_memory_option("Memory for data being read.")
@json_option
@store_options
@common_options
@click.pass_context
def export(
    context: click.Context,
    directory: Path,
    folder: str | None,
    as_of: str | None,
    buffer_memory: int,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Write a folder to a directory as a native untrusted device has it. Needs no password.

    DIRECTORY gets the folder's present state, encrypted: `syncthing decrypt` makes the plain files of it. It is created
    if need be. The same command again fetches what is missing or has changed, and removes what the folder no longer
    holds. The exit code is 1 if a file is damaged or cannot be written.
    """
    reading = dataclasses.replace(current_invocation().settings.reading, memory=buffer_memory * MIB)
    moment = parse_time(as_of) if as_of is not None else None
    report = run_interruptible(_export(store, folder, moment, directory, reading))
    if as_json:
        print_json({"ok": not report.failed, **dataclasses.asdict(report)})
    print_problems("not exported", report.failed)
    if report.not_tried:
        click.echo(f"the disk is full: {report.not_tried:,} more were not tried", err=True)
    parts = [f"{counted(report.files, 'file')} ({size_text(report.bytes)})"]
    parts += [f"{report.there:,} there already"] if report.there else []
    parts += [f"{report.removed:,} removed"] if report.removed else []
    failed = len(report.failed) + report.not_tried
    parts += [f"{failed:,} not exported"] if failed else []
    click.echo(f"exported {', '.join(parts)}", err=True)
    context.exit(NotRestored.exit_code if report.failed else 0)


async def _export(
    store: StoreOptions, folder_id: str | None, as_of: datetime | None, directory: Path, settings: ReadSettings
) -> ExportReport:
    # Imported here: it takes a while.
    from untrusted_s3.native_disk.exporting import EncryptedCopy
    from untrusted_s3.restore.target import Target
    from untrusted_s3.vault.folder import find_record

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_store(store))
        record = await find_record(bucket, await chosen_folder(bucket, folder_id))
        local = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="untrusted-s3-")), "state.sqlite")
        state = FolderState(local)
        stack.callback(state.close)
        keys = FolderKeys.of(record.folder_id)
        if as_of is None:
            await load_newest(bucket, keys, state)
        else:
            await load_as_of(bucket, keys, state, to_time_ms(as_of))
        totals = state.totals
        progress = Progress(total_files=totals.files, total_bytes=totals.bytes)
        target = stack.enter_context(Target(directory))
        if live_line is not None:
            await stack.enter_async_context(shown_progress(progress, "exported", live_line))
        return await EncryptedCopy(bucket, record, state, target, progress, settings).run()
