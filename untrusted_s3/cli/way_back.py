"""What `folders retract` and `folders rewind` share: the folder's log to write to, and the report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.key_holder import PASSWORD_VARIABLE, read_password
from untrusted_s3.cli.options import StoreOptions, apply_options, current_invocation, option
from untrusted_s3.cli.output import counted, print_json_with_list, print_table, size_text
from untrusted_s3.cli.progress import shown_text
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.store import layout, records
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.folder_removal import check_no_gateway_runs
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.way_back.plan import Plan, carry_out

if TYPE_CHECKING:
    from untrusted_s3.vault.opener import Opener
    from untrusted_s3.way_back.change import Change

DEFAULT_LIMIT = 20
# No gateway writes the segments of these commands.
_NOBODY = DeviceID(bytes(32))
_SHORT_ID = 7
_NAMES_IN_MEMORY = 1 << 20


@dataclass(slots=True)
class WritableFolder:
    """A folder whose log a command may extend.

    Attributes:
        bucket: The store.
        record: The folder's record.
        keys: The keys of the folder.
        log: The log, at its end.
        opener: What opens entries, if the password was given.
        scratch: A directory for more states.
    """

    bucket: Bucket
    record: FolderRecord
    keys: FolderKeys
    log: FolderLog
    opener: Opener | None
    scratch: Path

    @property
    def state(self) -> FolderState:
        """What the folder has at the last look."""
        return self.log.state


@asynccontextmanager
async def writable_folder(
    store: StoreOptions, folder_id: str, password: str | None, *, single_writer: bool
) -> AsyncIterator[WritableFolder]:
    """Open a folder for as long as the context lasts. Nothing is written yet.

    Raises WrongPassword, UsageError, DataError or StoreError.
    """
    # Imported here, because a gateway's process must load nothing that can decrypt.
    from untrusted_s3.vault.folder import find_record, open_entries

    async with open_bucket(store, single_writer=single_writer) as bucket:
        await records.read_record(bucket, layout.STORE, records.StoreRecord.from_json)
        if single_writer:
            await check_no_gateway_runs(bucket)
        record = await find_record(bucket, folder_id)
        opener = await open_entries(record, password) if password is not None else None
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            state = FolderState(Path(directory, "state.sqlite"))
            try:
                keys = FolderKeys.of(folder_id)
                log = FolderLog(bucket, keys, state, _NOBODY, store.settings.log)
                await log.load()
                yield WritableFolder(bucket, record, keys, log, opener, Path(directory))
            finally:
                state.close()


def way_back_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --password-file, --limit, --yes and --single-writer."""
    decorators = [
        option(
            "--password-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File with the folder's password.",
        ),
        option(
            "--limit",
            key="folders-limit",
            type=click.IntRange(min=0),
            metavar="N",
            help=f"Name at most so many entries.  [default: {DEFAULT_LIMIT}, with --json all]",
        ),
        option("--yes", key="folders-way-back-yes", is_flag=True, help="Do it. Otherwise nothing is changed."),
        option("--single-writer", is_flag=True, help="The store cannot write on conditions, and no gateway runs."),
    ]
    return apply_options(decorators, function)


@dataclass(slots=True)
class Report:
    """What is changed, or would be.

    Attributes:
        limit: How many changes are listed; None for all.
        opener: What gives plain names, if the password was given.
        changes: The number of names.
        back: How many of them get an earlier version.
        data_gone: How many get none, because the data of the earlier version are gone.
        sources: How many of the entries that go came from each device.
        listed: How many changes are listed: the first ones.
    """

    limit: int | None
    opener: Opener | None
    changes: int = 0
    back: int = 0
    data_gone: int = 0
    sources: dict[DeviceID, int] = field(default_factory=dict)
    listed: int = 0
    # One JSON text a line; there may be a million.
    _names: SpooledTemporaryFile[str] = field(
        default_factory=lambda: SpooledTemporaryFile(_NAMES_IN_MEMORY, "w+", encoding="utf-8"),  # noqa: SIM115
        repr=False,
    )

    def add(self, change: Change) -> None:
        """Count a change."""
        self.changes += 1
        self.back += change.after is not None
        self.data_gone += change.data_gone
        if change.before is not None and change.before.source is not None:
            self.sources[change.before.source] = self.sources.get(change.before.source, 0) + 1
        if self.limit is None or self.listed < self.limit:
            listed: dict[str, Any] = {"encrypted_name": change.name}
            if self.opener is not None:
                listed["path"] = self.opener.path(change.name)
            listed |= {"now": _entry_json(change.before), "instead": _entry_json(change.after)}
            self._names.write(json.dumps(listed) + "\n")
            self.listed += 1

    def names(self) -> Iterator[dict[str, Any]]:
        """Yield the listed changes."""
        self._names.seek(0)
        yield from map(json.loads, self._names)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the report, without the listed changes."""
        return {
            "changes": self.changes,
            "earlier_versions": self.back,
            "removed": self.changes - self.back,
            "data_gone": self.data_gone,
            "devices": {str(device): count for device, count in self.sources.items()},
        }

    def print_text(self, *, apply: bool) -> None:
        """Print the summary and the first changes, which are made if `apply`."""
        if not self.changes:
            return
        removed = self.changes - self.back
        text = f"with an earlier version instead: {self.back:,}; removed: {removed:,}"
        if self.data_gone:
            text += f", of which {self.data_gone:,} because the data of the earlier version are gone"
        click.echo(text)
        if self.listed:
            rows = [
                (one.get("path") or one["encrypted_name"], _entry_text(one["now"]), _entry_text(one["instead"]))
                for one in self.names()
            ]
            print_table(("NAME", "BEFORE" if apply else "NOW", "INSTEAD"), rows)
        if self.listed < self.changes:
            click.echo(f"… and {self.changes - self.listed:,} more")


async def run(folder: WritableFolder, plan: Plan, report: Report, *, apply: bool) -> None:
    """Make the changes of a plan, or only count them. Raises DataError or StoreError."""

    def text() -> str:
        if report.changes:
            return f"{counted(report.changes, 'name')} {'taken back' if apply else 'looked at'}"
        return f"reading the log again: segment {plan.replayed:,} of {folder.state.position:,}"

    async with contextlib.AsyncExitStack() as stack:
        live_line = current_invocation().live_line
        if live_line is not None:
            await stack.enter_async_context(shown_text(text, live_line))
        if apply:
            await records.open_store(folder.bucket, upgrade=True)
            await carry_out(folder.log, plan, report.add)
            return
        while await plan.prepare(folder.state):
            for change in plan.changes(folder.state):
                report.add(change)
            await asyncio.sleep(0)


def print_report(
    folder_id: str, what: str, report: Report, *, apply: bool, as_json: bool, more: dict[str, Any]
) -> None:
    """Print what was done, or would be. `what` completes the sentence, as in "taken back"."""
    if as_json:
        head = {"folder": folder_id, "applied": apply, **more, **report.to_json()}
        print_json_with_list(head, "names", report.names())
        return
    names = counted(report.changes, "name")
    click.echo(f"folder {folder_id!r}: {names} {'' if apply else 'would be '}{what}")
    report.print_text(apply=apply)
    if report.changes and not apply:
        click.echo("nothing was changed: this was a dry run, --yes does it", err=True)


def password_if_given(folder_id: str, file: Path | None) -> str | None:
    """Return the password from its file or the environment; None without either. Raises UsageError."""
    if file is None and not os.environ.get(PASSWORD_VARIABLE):
        return None
    return read_password(folder_id, file)


def _entry_json(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    message = entry.file_info.message
    kind = "deletion" if message.deleted else "file" if entry.file_info.has_data else "directory or symlink"
    return {
        "kind": kind,
        "size": message.size if entry.stored is not None else 0,
        "device": str(entry.source) if entry.source is not None else None,
    }


def _entry_text(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "nothing"
    text = f"file of {size_text(entry['size'])}" if entry["kind"] == "file" else str(entry["kind"])
    return text if entry["device"] is None else f"{text}, from {entry['device'][:_SHORT_ID]}"
