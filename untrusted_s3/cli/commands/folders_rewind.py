"""`untrusted-s3 folders rewind`: take a folder back to what it was at a time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from untrusted_s3.cli.key_holder import parse_time
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import counted
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.way_back import (
    DEFAULT_LIMIT,
    Report,
    password_if_given,
    print_report,
    run,
    way_back_options,
    writable_folder,
)
from untrusted_s3.index.history import load_as_of, to_time_ms
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.records import read_peers


@click.command("rewind")
@click.argument("folder_id", metavar="FOLDER")
@option(
    "--to",
    "time",
    key="folders-rewind-to",
    required=True,
    metavar="TIME",
    help="What the folder was then: 2026-11-01 or 2026-11-01T12:00, local time unless it ends in Z or +01:00.",
)
@way_back_options
@json_option
@store_options
@common_options
def rewind(
    folder_id: str,
    time: str,
    password_file: Path | None,
    limit: int | None,
    yes: bool,
    single_writer: bool,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Take a folder in the store back to what it was at a time.

    No data are deleted: the history stays, so that rewinding can be undone. Gateways may run.

    Devices are not changed. A trusted device that shares the folder sends what it has, which is newer, as soon as it
    connects. So first remove the folder from these devices, or pause them. Without --yes, the command only shows what
    it would do. It can be repeated at any time.
    """
    moment = parse_time(time, "--to")
    password = password_if_given(folder_id, password_file)
    report = Report(limit if limit is not None or as_json else DEFAULT_LIMIT, None)
    work = _rewind(store, folder_id, password, moment, report, apply=yes, single_writer=single_writer)
    lost, devices = run_interruptible(work)
    print_report(
        folder_id,
        f"taken back to {moment.isoformat(' ')}",
        report,
        apply=yes,
        as_json=as_json,
        more={"to": moment.isoformat(), "lost": lost},
    )
    if lost:
        click.echo(f"{counted(lost, 'name')} of that time cannot come back: the data are gone", err=True)
    if report.changes and devices:
        click.echo(
            f"warning: {counted(devices, 'device')} may connect (untrusted-s3 peers list): what those have that share"
            " the folder replaces the earlier state again",
            err=True,
        )


async def _rewind(
    store: StoreOptions,
    folder_id: str,
    password: str | None,
    moment: datetime,
    report: Report,
    *,
    apply: bool,
    single_writer: bool,
) -> tuple[int, int]:
    """Return how many names of that time cannot come back, and how many devices may write."""
    from untrusted_s3.way_back.rewinding import Rewinding

    async with writable_folder(store, folder_id, password, single_writer=single_writer) as folder:
        report.opener = folder.opener
        then = FolderState(folder.scratch / "then.sqlite")
        try:
            await load_as_of(folder.bucket, folder.keys, then, to_time_ms(moment), store.settings.log)
            plan = Rewinding(folder.bucket, folder.keys, then, store.settings.log)
            await run(folder, plan, report, apply=apply)
        finally:
            then.close()
        peers = await read_peers(folder.bucket)
        return plan.lost, sum(not peer.read_only for peer in peers)
