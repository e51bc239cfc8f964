"""`untrusted-s3 check`: check the store without any password."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.cli.allocator import reuse_large_buffers
from untrusted_s3.cli.findings import Findings
from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    current_invocation,
    json_option,
    option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json_with_list, size_text
from untrusted_s3.cli.progress import shown_text
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.errors import DataError

if TYPE_CHECKING:
    from untrusted_s3.check.share import Share
    from untrusted_s3.check.store import StoreCheck

_PART = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_PERCENTAGE = re.compile(r"([0-9]{1,3}(\.[0-9]{1,6})?)%")
_SEED_BITS = 32


class ShareType(click.ParamType["Share"]):
    """Which objects to read: `all`, `5%` or `1/7`."""

    name = "share"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Share:
        from untrusted_s3.check.share import ALL, Share

        text = str(value)
        if text == "all":
            return ALL
        if (part := _PART.fullmatch(text)) and 1 <= int(part[1]) <= int(part[2]):
            number, parts = int(part[1]), int(part[2])
            return Share((number - 1) / parts, number / parts)
        if (percent := _PERCENTAGE.fullmatch(text)) and 0 < float(percent[1]) <= 100:
            return Share(0.0, float(percent[1]) / 100, secrets.randbits(_SEED_BITS))
        return self.fail(f"{text!r} is not all, a percentage such as 5%, or a part such as 1/7", parameter, context)


@click.command()
@click.argument("folder_ids", metavar="[FOLDER]...", nargs=-1)
@option(
    "--read",
    "share",
    key="check-read",
    type=ShareType(),
    metavar="all|5%|1/7",
    help="Read objects and compare their checksums: all, a random share, or one of so many equal parts.",
)
@json_option
@store_options
@common_options
@click.pass_context
def check(
    context: click.Context, folder_ids: tuple[str, ...], share: Share | None, as_json: bool, store: StoreOptions
) -> None:
    """Check the store without any password.

    All records are read, and all of each folder's log. The checkpoints have to say what the log says, and every object
    that a folder names has to be there with its size. With --read, objects are read too, and their checksums compared
    with the log. Without FOLDER, all folders are checked. Nothing is written, and gateways may run.

    What is damaged or missing is listed, and the exit code is 1. A gateway has devices send again what it notices to
    be missing or damaged. What no longer matters for the present state of a folder, and what is no part of the store,
    is noted, and changes no exit code.
    """
    reuse_large_buffers()
    findings = Findings()
    checked = run_interruptible(_check(store, folder_ids, share, findings))
    if as_json:
        value = {
            "ok": not findings.damage,
            "damage": findings.damage,
            "notes": findings.notes,
            "folders": [dataclasses.asdict(folder) for folder in checked.folders],
        }
        print_json_with_list(value, "findings", findings.to_json())
    else:
        findings.print()
        print_summary(checked, findings)
    context.exit(DataError.exit_code if findings.damage else 0)


async def _check(
    store: StoreOptions, folder_ids: tuple[str, ...], share: Share | None, findings: Findings
) -> StoreCheck:
    from untrusted_s3.check.store import StoreCheck

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_bucket(store))
        checking = StoreCheck(bucket, share, store.settings)
        if live_line is not None:
            await stack.enter_async_context(shown_text(lambda: _progress(checking), live_line))
        async for finding in checking.run(folder_ids):
            findings.add(finding)
        return checking


def _progress(checking: StoreCheck) -> str:
    if not checking.folders:
        return "reading the records"
    folder = checking.folders[-1]
    if folder.read_objects:
        return (
            f"{folder.id}: read {folder.read_objects:,} of {folder.objects:,} objects, {size_text(folder.read_bytes)}"
        )
    if folder.segments < folder.listed_segments or not folder.files:
        return f"{folder.id}: read {folder.segments:,} of {folder.listed_segments:,} segments of the log"
    return f"{folder.id}: looking at the objects of {counted(folder.files, 'file')}"


def print_summary(checking: StoreCheck, findings: Findings) -> None:
    """Print what was checked, a line each folder, and the result."""
    for folder in checking.folders:
        text = f"{folder.id}: {counted(folder.files, 'file')}, {counted(folder.objects, 'object')}"
        text += f" ({size_text(folder.bytes)})"
        if folder.read_objects:
            text += f", {folder.read_objects:,} of them read ({size_text(folder.read_bytes)})"
        text += f"; {counted(folder.segments, 'segment')} and {counted(folder.checkpoints, 'checkpoint')} of the log"
        if folder.unused_objects:
            text += (
                f"; {counted(folder.unused_objects, 'object')} of earlier versions ({size_text(folder.unused_bytes)})"
            )
        click.echo(text)
    damage = counted(findings.damage, "problem") if findings.damage else "no damage"
    notes = f", {counted(findings.notes, 'note')}" if findings.notes else ""
    click.echo(f"checked {counted(len(checking.folders), 'folder')}: {damage}{notes}")
