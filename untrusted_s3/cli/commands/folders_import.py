"""`untrusted-s3 folders import`: bring the directory of a native untrusted device into the store."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from untrusted_s3.bep.device_id import DeviceID
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
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.errors import FAILED, SUCCESS
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.embedded.files import has_store
from untrusted_s3.store.folder_removal import check_no_gateway_runs
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.probe import probe_conditional_writes
from untrusted_s3.threads import in_thread_to_the_end
from untrusted_s3.units import MIB

if TYPE_CHECKING:
    from untrusted_s3.native_disk.importing import ImportReport
    from untrusted_s3.native_disk.token_file import PasswordToken

# No gateway writes the segments of this command.
_NOBODY = DeviceID(bytes(32))


@click.command("import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@option("--single-writer", is_flag=True, help="The store cannot write on conditions, and no gateway runs.")
@buffer_memory_option("Memory for data on their way.")
@json_option
@store_options
@common_options
@click.pass_context
def import_(
    context: click.Context,
    directory: Path,
    single_writer: bool,
    buffer_memory: int,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Bring the folder of a native untrusted device into the store, from its disk. Needs no password.

    DIRECTORY is that of a Receive Encrypted folder of Syncthing 1.19 to 2.1. Its files are stored as they are, under
    the same folder ID and password. Then share the folder with the gateway on a trusted device, with the same
    password: only what has changed since is sent. Directories, symlinks and deletions have no file on the disk, and
    come with the index of that device.

    Stop the native Syncthing, or pause the folder. Nothing in DIRECTORY is changed. Gateways may run. The same command
    again goes on after an interruption. What does not look encrypted is refused and named; the exit code is then 1.
    """
    from untrusted_s3.native_disk.token_file import find_token

    marker, token = find_token(directory)
    report = run_interruptible(
        _import(store, directory, marker, token, buffer_memory * MIB, single_writer=single_writer)
    )
    if as_json:
        print_json({"ok": not report.refused, "folder": token.folder_id, **dataclasses.asdict(report)})
    print_problems("not imported", report.refused)
    parts = [f"{counted(report.files, 'file')} ({size_text(report.bytes)})"]
    parts += [f"{report.there:,} there already"] if report.there else []
    parts += [f"{report.older:,} older than in the store"] if report.older else []
    parts += [f"{report.unfinished:,} not received as a whole by Syncthing"] if report.unfinished else []
    parts += [f"{len(report.refused):,} refused"] if report.refused else []
    click.echo(f"imported {', '.join(parts)} into the folder {token.folder_id!r}", err=True)
    context.exit(FAILED if report.refused else SUCCESS)


async def _import(
    store: StoreOptions, directory: Path, marker: str, token: PasswordToken, memory: int, *, single_writer: bool
) -> ImportReport:
    # Imported here: it takes a while.
    from untrusted_s3.native_disk.importing import Import, measured, open_folder

    settings, live_line = store.settings, current_invocation().live_line
    is_new = store.location is None and not has_store(store.embedded_directory)
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_bucket(store, own_server=is_new, single_writer=single_writer))
        if single_writer:
            await check_no_gateway_runs(bucket)
        elif store.location is not None:
            await probe_conditional_writes(bucket)
        record = await open_folder(bucket, token)
        local = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="untrusted-s3-")), "state.sqlite")
        state = FolderState(local)
        stack.callback(state.close)
        keys = FolderKeys.of(record.folder_id)
        log = FolderLog(bucket, keys, state, _NOBODY, settings.log)
        await log.load()
        progress = await in_thread_to_the_end(measured, directory, marker)
        if live_line is not None:
            await stack.enter_async_context(shown_progress(progress, "imported", live_line))
        return await Import(bucket, keys, log, directory, marker, progress, settings, memory).run()
