"""`untrusted-s3 verify`: check that everything in the store can be restored."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import secrets
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.cli.allocator import reuse_large_buffers
from untrusted_s3.cli.key_holder import (
    KeyHolderOptions,
    key_holder_options,
    noting_deletions,
    opened_folder,
    tell_earlier_versions,
)
from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    current_invocation,
    json_option,
    option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json, print_problems, size_text
from untrusted_s3.cli.progress import shown_progress
from untrusted_s3.cli.selection import selection_options
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import DataError
from untrusted_s3.settings import ReadSettings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import read_folders

if TYPE_CHECKING:
    from untrusted_s3.problem import Problem
    from untrusted_s3.vault.selection import Selection
    from untrusted_s3.verify.report import VerifyReport

_SEED_BITS = 32


class _Percentage(click.ParamType[float]):
    """A percentage such as `5%` or `5`, as a share from 0 to 1."""

    name = "percentage"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        try:
            percent = float(str(value).removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            self.fail(f"{value!r} is not a percentage above 0% and up to 100%", parameter, context)
        return percent / 100


@click.command()
@selection_options
@option("--sample", type=_Percentage(), metavar="PERCENT%", help="Check only a random share of the files.")
@option("--seed", type=click.IntRange(min=0), metavar="N", help="Check the same random share again.")
@json_option
@key_holder_options
@store_options
@common_options
@click.pass_context
def verify(
    context: click.Context,
    selection: Selection,
    reading: ReadSettings,
    sample: float | None,
    seed: int | None,
    as_json: bool,
    key_holder: KeyHolderOptions,
    store: StoreOptions,
) -> None:
    """Read, decrypt and check all of a folder.

    Of a file with several versions, all are checked. The folder's log is checked too. The exit code is 1 if anything is
    damaged or cannot be read.
    """
    if sample is not None and seed is None:
        seed = secrets.randbits(_SEED_BITS)
    reuse_large_buffers()
    log, report = run_interruptible(_verify(store, key_holder, selection, sample, seed or 0, reading))
    well = report is not None and not log and not report.damaged and not report.unreadable
    if as_json:
        print_json(
            {
                "ok": well,
                "seed": seed,
                "log": [dataclasses.asdict(problem) for problem in log],
                **(dataclasses.asdict(report) if report is not None else {}),
            }
        )
    else:
        _print_report(log, report, sample, seed)
    context.exit(0 if well else DataError.exit_code)


async def _verify(
    store: StoreOptions,
    key_holder: KeyHolderOptions,
    selection: Selection,
    share: float | None,
    seed: int,
    reading: ReadSettings,
) -> tuple[list[Problem], VerifyReport | None]:
    """Return what is wrong with the log, and with the files; None for these if the log is too damaged to name them."""
    from untrusted_s3.index.log_check import check_log
    from untrusted_s3.verify.sampling import sample
    from untrusted_s3.verify.verification import Verification

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_store(store))
        try:
            folder = await stack.enter_async_context(opened_folder(bucket, key_holder))
        except DataError:
            folder_id = key_holder.folder_id or (await read_folders(bucket))[0].folder_id
            log = [problem async for problem in check_log(bucket, FolderKeys.of(folder_id))]
            if not log:
                raise
            return log, None
        log = [problem async for problem in check_log(bucket, folder.keys)]
        progress = selection.progress(folder, versions=True)
        entries = selection.of(folder, versions=True)
        all_of_it = share is None and selection.is_everything
        if share is not None:
            entries = sample(entries, share, progress.total_files, seed)
            progress.total_files = math.ceil(progress.total_files * share)
            progress.total_bytes = int(progress.total_bytes * share)
        if live_line is not None:
            await stack.enter_async_context(shown_progress(progress, "verified", live_line))
        verification = stack.enter_context(Verification(folder, progress, reading, list_objects=all_of_it))
        false_deletions: list[str] = []
        report = await verification.run(noting_deletions(entries, false_deletions))
        await tell_earlier_versions(folder, false_deletions)
        return log, report


def _print_report(log: list[Problem], report: VerifyReport | None, share: float | None, seed: int | None) -> None:
    print_problems("damaged in the log", log)
    if report is None:
        click.echo("the log is too damaged to tell which files there are", err=True)
        return
    print_problems("damaged", report.damaged)
    print_problems("not verified", report.unreadable)
    what = f"{counted(report.files, 'file')} ({size_text(report.bytes)})"
    if report.other_versions:
        what += f", {report.other_versions:,} of them other versions,"
    if share is not None:
        what += f", a sample of {share:.4g} with --seed {seed},"
    damage = counted(len(log) + len(report.damaged), "problem") if log or report.damaged else "no damage"
    damage += f", {counted(len(report.unreadable), 'file')} not verified" if report.unreadable else ""
    click.echo(f"verified {what} and {report.others:,} directories and symlinks: {damage}")
