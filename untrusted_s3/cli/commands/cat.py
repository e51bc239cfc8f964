"""`untrusted-s3 cat`: write one file of a folder to standard output."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys

import click
import uvloop

from untrusted_s3.cli.key_holder import QUIET, KeyHolderOptions, key_holder_options, opened_folder, tell_conflicts
from untrusted_s3.cli.options import StoreOptions, common_options, option, store_options
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import DataError, UsageError

_RANGE = re.compile(r"(\d{1,18})?-(\d{1,18})?")


@click.command(context_settings=QUIET)
@click.argument("path")
@option(
    "--range",
    "byte_range",
    key="byte-range",
    metavar="FIRST-LAST",
    help="Only these bytes, counted from 0, both ends included; FIRST- is the rest, -N the last N bytes.",
)
@key_holder_options
@store_options
@common_options
def cat(path: str, byte_range: str | None, key_holder: KeyHolderOptions, store: StoreOptions) -> None:
    """Write a file of a folder to standard output.

    PATH is the file's path in the folder, or that of a conflict copy. The file comes straight from the store; every
    block is checked before it is written.
    """
    if byte_range is not None and (not _RANGE.fullmatch(byte_range) or byte_range == "-"):
        raise UsageError(f"--range must look like 0-499, 500- or -500, not {byte_range!r}")
    uvloop.run(_cat(path, byte_range, key_holder, store))


async def _cat(path: str, byte_range: str | None, key_holder: KeyHolderOptions, store: StoreOptions) -> None:
    from untrusted_s3.vault.entry import DamagedEntry
    from untrusted_s3.vault.reading import BlockReader

    async with open_store(store) as bucket, opened_folder(bucket, key_holder) as folder:
        entry = folder.entry(path.strip("/"))
        if entry is None:
            raise UsageError(f"there is no {path!r} in the folder")
        if isinstance(entry, DamagedEntry):
            raise DataError(f"{path!r} is damaged: {entry.reason}")
        if entry.conflicts:
            tell_conflicts(entry.conflicts, "ls --conflicts lists them")
        start, end = find_range(byte_range, entry.size)
        output = sys.stdout.buffer
        async with (
            BlockReader(folder, store.settings.reading) as reader,
            contextlib.aclosing(reader.blocks(entry, start, end)) as blocks,
        ):
            async for block in blocks:
                # In a thread: while the reader of a pipe is slow, the next blocks can arrive.
                await asyncio.to_thread(output.write, block.data)
        await asyncio.to_thread(output.flush)


def find_range(byte_range: str | None, size: int) -> tuple[int, int]:
    """Return the begin and end (not included) of the bytes that --range selects in a file of that size."""
    if byte_range is None:
        return 0, size
    first, _, last = byte_range.partition("-")
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
