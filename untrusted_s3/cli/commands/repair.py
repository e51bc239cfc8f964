"""`untrusted-s3 repair`: mend what a check finds damaged."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.cli.allocator import reuse_large_buffers
from untrusted_s3.cli.commands.check import ShareType
from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    current_invocation,
    json_option,
    option,
    single_writer_option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json
from untrusted_s3.cli.progress import shown_text
from untrusted_s3.cli.secret import read_secret
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.errors import FAILED, SUCCESS, UsageError
from untrusted_s3.store.folder_removal import check_no_gateway_runs
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.check.share import Share
    from untrusted_s3.repair.action import Action
    from untrusted_s3.repair.store import StoreRepair


@click.command()
@click.argument("folder_ids", metavar="[FOLDER]...", nargs=-1)
@option(
    "--read",
    "share",
    key="repair-read",
    type=ShareType(),
    metavar="all|5%|1/7",
    help="Read objects to find those whose bytes are damaged: all, a random share, or one of so many equal parts.",
)
@option(
    "--from",
    "other",
    key="repair-from",
    metavar="s3://BUCKET[/PREFIX]",
    help="Another store with the same folders, from which damaged and missing objects and records are copied.",
)
@option(
    "--from-endpoint-url",
    "other_endpoint_url",
    key="repair-from-endpoint-url",
    metavar="URL",
    help="The S3 server of --from, if not the same.",
)
@option(
    "--password-file",
    key="repair-password-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the password of FOLDER, to make its record again if that is lost. Give one FOLDER.",
)
@option("--yes", key="repair-yes", is_flag=True, help="Do it. Otherwise nothing is changed.")
@single_writer_option
@json_option
@store_options
@common_options
@click.pass_context
def repair(
    context: click.Context,
    folder_ids: tuple[str, ...],
    share: Share | None,
    other: str | None,
    other_endpoint_url: str | None,
    password_file: Path | None,
    yes: bool,
    single_writer: bool,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Mend what a check finds damaged or missing.

    An object is copied from --from, if that has it as the log says. Otherwise the version is taken back: devices see
    that the gateway lacks the file, and one that has it sends it again to any gateway that runs. Broken checkpoints are
    written again from the log. Broken segments of the log are moved aside and kept; what no checkpoint says is put
    together from all that is left. A segment is moved only when no gateway that stalls could still write in its place.
    Records are copied from --from, or made again where others tell them.

    No password is needed, but for the record of a folder that nobody else has: it tells the folder's password from
    others, and is made again with --password-file.

    Without --yes, the command only shows what it would do. Gateways may run. The exit code is 1 if something cannot be
    repaired. The command can be repeated at any time.
    """
    if other_endpoint_url is not None and other is None:
        raise UsageError("--from-endpoint-url needs --from")
    if password_file is not None and len(folder_ids) != 1:
        raise UsageError("--password-file needs one FOLDER")
    password = read_secret(password_file, "password") if password_file is not None else None
    try:
        second = StoreLocation.parse(other) if other is not None else None
    except UsageError as error:
        raise UsageError(f"--from: {error}") from None
    reuse_large_buffers()
    actions = run_interruptible(
        _repair(store, folder_ids, share, second, other_endpoint_url, password, single_writer, apply=yes)
    )
    helpless = [action for action in actions if action.remedy.is_none]
    if as_json:
        listed = [{**dataclasses.asdict(action), "remedy": action.remedy.value} for action in actions]
        print_json({"ok": not helpless, "applied": yes, "actions": listed})
    else:
        _print_report(actions, len(helpless), applied=yes)
    context.exit(FAILED if helpless else SUCCESS)


async def _repair(
    store: StoreOptions,
    folder_ids: tuple[str, ...],
    share: Share | None,
    second: StoreLocation | None,
    endpoint_url: str | None,
    password: str | None,
    single_writer: bool,
    *,
    apply: bool,
) -> list[Action]:
    from untrusted_s3.repair.folder import RepairOptions
    from untrusted_s3.repair.store import StoreRepair, gateway_runs

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_bucket(store, single_writer=single_writer))
        if single_writer:
            await check_no_gateway_runs(bucket)
        other = None
        if second is not None:
            options = dataclasses.replace(
                store, location=second, endpoint_url=endpoint_url or store.endpoint_url, create_bucket=False
            )
            other = await stack.enter_async_context(open_bucket(options))
        options_of_repair = RepairOptions(apply, share, await gateway_runs(bucket), store.settings)
        make = {}
        if password is not None:
            from untrusted_s3.vault.lost_record import make_record

            make = {FolderKeys.of(one): partial(make_record, folder_id=one, password=password) for one in folder_ids}
        repairing = StoreRepair(bucket, other, options_of_repair, make)
        if live_line is not None:
            await stack.enter_async_context(shown_text(lambda: _progress(repairing), live_line))
        return [action async for action in repairing.run(folder_ids)]


def _progress(repairing: StoreRepair) -> str:
    if not repairing.folders:
        return "reading the records"
    folder = repairing.folders[-1]
    return f"{folder.id}: {counted(folder.segments, 'segment')} and {counted(folder.read_objects, 'object')} read"


def _print_report(actions: list[Action], helpless: int, *, applied: bool) -> None:
    remedies: dict[Any, list[Action]] = {}
    for action in actions:
        remedies.setdefault(action.remedy, []).append(action)
    for remedy, of_remedy in remedies.items():
        is_said = applied or remedy.is_none or remedy.waits
        click.echo(f"{remedy.value if is_said else f'to be {remedy.value}'}:")
        for action in of_remedy:
            click.echo(f"  {printable(action.path)}: {printable(action.problem)}; {printable(action.reason)}")
    waiting = sum(action.remedy.waits for action in actions)
    mended = len(actions) - helpless - waiting
    text = "nothing to repair" if not actions else f"{counted(mended, 'thing')} {'' if applied else 'to be '}repaired"
    text += f", {waiting:,} left for later" if waiting else ""
    text += f", {helpless:,} cannot be" if helpless else ""
    click.echo(text)
    if mended and not applied:
        click.echo("nothing was changed: --yes does it", err=True)
    elif mended:
        click.echo("untrusted-s3 check tells what is left", err=True)
