"""`untrusted-s3 restore`: write a folder, or a part of it, to a local directory."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from untrusted_s3.cli.advice import advise
from untrusted_s3.cli.allocator import reuse_large_buffers
from untrusted_s3.cli.key_holder import (
    KeyHolderOptions,
    key_holder_options,
    noting_deletions,
    opened_folder,
    tell_conflicts,
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
from untrusted_s3.errors import NotRestored, PathTaken
from untrusted_s3.settings import ReadSettings
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.progress import Progress
    from untrusted_s3.restore.report import Outcome, RestoreOptions, RestoreReport
    from untrusted_s3.restore.target import Target
    from untrusted_s3.vault.entry import Entry
    from untrusted_s3.vault.selection import Selection


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@selection_options
@option("--overwrite", is_flag=True, help="Replace files and symlinks that differ.")
@option("--owner", is_flag=True, help="Also restore user and group.")
@option("--xattrs", is_flag=True, help="Also restore extended attributes of the namespace user.")
@option(
    "--privileged-xattrs", is_flag=True, help="Also restore those of other namespaces: capabilities, ACLs and so on."
)
@option(
    "--conflicts", is_flag=True, help="Also restore the other versions of files in conflict, under names of their own."
)
@option("--dry-run", is_flag=True, help="Write nothing; list the paths to restore.")
@json_option
@key_holder_options
@store_options
@common_options
@click.pass_context
def restore(
    context: click.Context,
    target: Path,
    selection: Selection,
    reading: ReadSettings,
    overwrite: bool,
    owner: bool,
    xattrs: bool,
    privileged_xattrs: bool,
    conflicts: bool,
    dry_run: bool,
    as_json: bool,
    key_holder: KeyHolderOptions,
    store: StoreOptions,
) -> None:
    """Restore a folder to a directory.

    TARGET is the directory; it is created if need be. Files that are in it with equal size and time are not fetched
    again: after an interruption, start the command once more. The exit code is 1 if a file is damaged or cannot be
    written.
    """
    # Imported here, because a gateway's process must load nothing that can decrypt.
    from untrusted_s3.restore.report import RestoreOptions

    reuse_large_buffers()
    options = RestoreOptions(overwrite, owner, xattrs, dry_run, privileged_xattrs)
    report = run_interruptible(_restore(store, key_holder, target, selection, options, reading, as_json, conflicts))
    _add_advice(report)
    if as_json:
        fields = dataclasses.asdict(report)
        del fields["taken"]
        print_json({"ok": not report.failed, "dry_run": dry_run, **fields})
    _print_report(report, dry_run)
    if report.conflicts and not conflicts:
        tell_conflicts(report.conflicts, "--conflicts restores them too")
    context.exit(NotRestored.exit_code if report.failed else 0)


async def _restore(
    store: StoreOptions,
    key_holder: KeyHolderOptions,
    target: Path,
    selection: Selection,
    options: RestoreOptions,
    reading: ReadSettings,
    as_json: bool,
    conflicts: bool,
) -> RestoreReport:
    from untrusted_s3.restore.report import Outcome
    from untrusted_s3.restore.restoration import Restoration
    from untrusted_s3.restore.target import Target
    from untrusted_s3.vault.reading import BlockReader

    def list_path(entry: Entry, outcome: Outcome) -> None:
        if options.dry_run and not as_json and outcome is Outcome.RESTORED:
            click.echo(printable(entry.path))

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_store(store))
        folder = await stack.enter_async_context(opened_folder(bucket, key_holder))
        reader = await stack.enter_async_context(BlockReader(folder, reading))
        progress = selection.progress(folder, conflicts=conflicts)
        real_target = not options.dry_run or target.exists()
        if not real_target:
            target = Path(stack.enter_context(tempfile.TemporaryDirectory()))  # as empty as a new target
        opened = stack.enter_context(Target(target))
        if real_target:
            _warn_of_full_disk(opened, progress)
        run = Restoration(reader, opened, options, progress, list_path)
        if live_line is not None and not options.dry_run:
            await stack.enter_async_context(shown_progress(progress, "restored", live_line))
        false_deletions: list[str] = []
        selected = selection.of(folder, conflicts=conflicts)
        report = await run.run(noting_deletions(selected, false_deletions))
        report.conflicts = sum(1 for _ in folder.conflicts(selection.includes))
        await tell_earlier_versions(folder, false_deletions)
        return report


def _warn_of_full_disk(target: Target, progress: Progress) -> None:
    free = target.free_bytes()
    if free is not None and free < progress.total_bytes:
        click.echo(
            f"warning: the selection has {size_text(progress.total_bytes)}, and the target has room for"
            f" {size_text(free)}; only files that are there already and runs of zeros need none",
            err=True,
        )


def _add_advice(report: RestoreReport) -> None:
    taken, advice = set(report.taken), advise(PathTaken())
    report.failed = [
        dataclasses.replace(problem, reason=f"{problem.reason} ({advice})") if problem.path in taken else problem
        for problem in report.failed
    ]


def _print_report(report: RestoreReport, dry_run: bool) -> None:
    print_problems("not restored", report.failed)
    if report.not_tried:
        click.echo(f"the disk is full: {report.not_tried:,} more were not tried", err=True)
    print_problems("restored, but not all of its metadata", report.incomplete)
    parts = [f"{counted(report.files, 'file')} ({size_text(report.bytes)})", counted(report.symlinks, "symlink")]
    parts += [f"{report.there:,} there already"] if report.there else []
    parts += [counted(report.conflicts, "conflict")] if report.conflicts else []
    failed = len(report.failed) + report.not_tried
    parts += [f"{failed:,} not restored"] if failed else []
    click.echo(f"{'would restore' if dry_run else 'restored'} {', '.join(parts)}", err=True)
