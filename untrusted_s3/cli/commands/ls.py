"""`untrusted-s3 ls`: list a folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

import click
import uvloop

from untrusted_s3.cli.key_holder import (
    QUIET,
    KeyHolderOptions,
    key_holder_options,
    opened_folder,
    tell_conflicts,
    tell_earlier_versions,
)
from untrusted_s3.cli.options import StoreOptions, common_options, option, store_options
from untrusted_s3.cli.store import open_store
from untrusted_s3.errors import DataError, UsageError
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.vault.entry import DamagedEntry, Entry
    from untrusted_s3.vault.folder import Folder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {"file": "-", "directory": "d", "symlink": "l"}
_SIZE_WIDTH = 12
_HUMAN_WIDTH = 5
_SECOND = 1_000_000_000


@click.command(context_settings={**QUIET, "help_option_names": ["--help"]})
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@option("-l", "--long", is_flag=True, help="Show mode, size, time of modification and targets of symlinks.")
@option("-R", "--recursive", is_flag=True, help="List subdirectories too.")
@option("-h", "--human-readable", is_flag=True, help="Show sizes like 1.5K and 12M.")
@option("--deleted", is_flag=True, help="List deleted files too.")
@option("--conflicts", is_flag=True, help="List the other versions of files in conflict too.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@key_holder_options
@store_options
@common_options
@click.pass_context
def ls(
    context: click.Context,
    paths: tuple[str, ...],
    long: bool,
    recursive: bool,
    human_readable: bool,
    deleted: bool,
    conflicts: bool,
    as_json: bool,
    key_holder: KeyHolderOptions,
    store: StoreOptions,
) -> None:
    """List a folder, straight from the store.

    PATH is a directory, a file, or a glob: *, ? and [...] stand for characters of one name, ** for any. The exit code
    is 1 if something is damaged.
    """
    listing = _Listing(long, recursive, human_readable, deleted, conflicts, as_json)
    context.exit(uvloop.run(_list(listing, paths, key_holder, store)))


async def _list(listing: _Listing, paths: tuple[str, ...], key_holder: KeyHolderOptions, store: StoreOptions) -> int:
    async with open_store(store) as bucket, opened_folder(bucket, key_holder) as folder:
        listing.show_paths(folder, paths or ("",))
        await tell_earlier_versions(folder, listing.false_deletions)
        if folder.conflict_count and not listing.conflicts:
            tell_conflicts(folder.conflict_count, "--conflicts lists them")
        if listing.missing:
            return UsageError.exit_code
        return DataError.exit_code if listing.damaged else 0


class _Listing:
    """Prints entries as they come. `missing` and `damaged` say whether a path was missing or an entry damaged.

    `false_deletions` has the encrypted names of entries that are falsely announced as deleted.
    """

    def __init__(
        self, long: bool, recursive: bool, human_readable: bool, deleted: bool, conflicts: bool, as_json: bool
    ) -> None:
        self.conflicts = conflicts
        self.missing = False
        self.damaged = False
        self.false_deletions: list[str] = []
        self._long = long
        self._recursive = recursive
        self._human_readable = human_readable
        self._deleted = deleted
        self._as_json = as_json
        self._separate = False

    def show_paths(self, folder: Folder, paths: Iterable[str]) -> None:
        """Print what paths and globs match: first files and symlinks, then the contents of each directory."""
        directories: list[str] = []
        for path in paths:
            directories += self._show_items(folder, path)
        for directory in directories:
            self._show_directory(folder, directory, self._recursive or len(directories) > 1 or self._separate)

    def _show_items(self, folder: Folder, path: str) -> list[str]:
        """Print the files and symlinks that a path matches; return the directories."""
        from untrusted_s3.vault.globs import is_glob

        plain = path.strip("/").removeprefix("./")
        if plain in ("", "."):
            return [""]
        entry = folder.entry(plain)
        copies = folder.conflicts(plain.__eq__) if self.conflicts else ()
        found: Iterable[Entry | DamagedEntry] = [copy for copy in copies if copy.path != plain]
        if entry is not None and (self._deleted or not is_deleted(entry)):
            found = [entry, *found]
        elif not found:
            if next(folder.entries(plain, deleted=self._deleted, conflicts=self.conflicts), None) is not None:
                return [plain]  # a directory that the log does not have (yet)
            found = self._matching(folder, plain) if is_glob(plain) else ()
        directories, empty = [], True
        for entry in found:
            empty = False
            if is_directory(entry):
                directories.append(str(entry.path))
            else:
                self._show(entry, str(entry.path))
                self._separate = True
        if empty:
            self.missing = True
            click.echo(f"error: there is no {printable(path)!r} in the folder", err=True)
        return directories

    def _matching(self, folder: Folder, glob: str) -> Iterator[Entry | DamagedEntry]:
        from untrusted_s3.vault.globs import compile_glob

        matches = compile_glob(glob).fullmatch
        for entry in folder.entries(deleted=self._deleted, matching=matches, conflicts=self.conflicts):
            path = getattr(entry, "conflict_of", None) or entry.path
            if path is not None and (matches(path) or matches(str(entry.path))):
                yield entry

    def _show_directory(self, folder: Folder, directory: str, named: bool) -> None:
        shown: dict[str, bool] = {"deleted": self._deleted, "conflicts": self.conflicts}
        below = folder.directories(directory, **shown) if self._recursive else ()
        for path in itertools.chain([directory], below):
            if named and not self._as_json:
                self._print(("\n" if self._separate else "") + printable(path or ".") + ":")
            self._separate = True
            for entry in folder.children(path, **shown):
                self._show(entry, str(entry.path).rpartition("/")[2])
        if not directory:
            for entry in folder.unnamed(deleted=self._deleted):
                self._show(entry, entry.path or "")

    def _show(self, entry: Entry | DamagedEntry, name: str) -> None:
        from untrusted_s3.vault.entry import DamagedEntry

        if isinstance(entry, DamagedEntry):
            self.damaged = True
            if entry.deleted:
                self.false_deletions.append(entry.encrypted_name)
            if self._as_json:
                self._print(json.dumps(_damaged_json(entry)))
            else:
                what = f"{printable(entry.path)!r} ({entry.encrypted_name})" if entry.path else entry.encrypted_name
                click.echo(f"damaged: {what}: {printable(entry.reason)}", err=True)
        elif self._as_json:
            self._print(json.dumps(entry_json(entry)))
        elif self._long:
            self._print(self._long_line(entry, name))
        else:
            self._print(printable(name))

    def _long_line(self, entry: Entry, name: str) -> str:
        size = human_size(entry.size).rjust(_HUMAN_WIDTH) if self._human_readable else f"{entry.size:{_SIZE_WIDTH}}"
        target = f" -> {printable(entry.target)}" if entry.kind == "symlink" else ""
        note = " (deleted)" if entry.deleted else " (conflict)" if entry.conflict_of is not None else ""
        return f"{mode_text(entry)} {size} {time_text(entry.modified_ns)} {printable(name)}{target}{note}"

    def _print(self, line: str) -> None:
        click.echo(line.encode())


def is_deleted(entry: Entry | DamagedEntry) -> bool:
    """Return whether the entry is a deletion. One that is not authentic is damage instead."""
    return entry.deleted and getattr(entry, "kind", None) is not None


def is_directory(entry: Entry | DamagedEntry) -> bool:
    """Return whether the entry is a directory."""
    return getattr(entry, "kind", None) == "directory"


def entry_json(entry: Entry) -> dict[str, Any]:
    """Return the JSON object of an entry."""
    value: dict[str, Any] = {
        "path": entry.path,
        "kind": entry.kind,
        "size": entry.size,
        "mode": f"{entry.mode:04o}" if entry.mode is not None else None,
        "modified": iso_text(entry.modified_ns),
    }
    if entry.kind == "symlink":
        value["target"] = entry.target
    if entry.deleted:
        value["deleted"] = True
    if entry.conflicts:
        value["conflicts"] = entry.conflicts
    if entry.conflict_of is not None:
        value["conflict_of"] = entry.conflict_of
    return value


def _damaged_json(entry: DamagedEntry) -> dict[str, Any]:
    return {"path": entry.path, "encrypted_name": entry.encrypted_name, "damaged": entry.reason}


def mode_text(entry: Entry) -> str:
    """Return type and permissions as `ls -l` shows them."""
    mode = 0o777 if entry.kind == "symlink" else entry.mode
    if mode is None:
        return _TYPES[entry.kind] + 9 * "?"
    bits = f"{mode:09b}"
    return _TYPES[entry.kind] + "".join(
        letter if bit == "1" else "-" for bit, letter in zip(bits, 3 * "rwx", strict=True)
    )


def time_text(modified_ns: int, zone: tzinfo | None = None) -> str:
    """Return date and time to the minute, in local time unless `zone` is given; question marks if out of range."""
    moment = _moment(modified_ns)
    try:
        return moment.astimezone(zone).isoformat(" ", "minutes")[:16] if moment else "????-??-?? ??:??"
    except (OverflowError, ValueError, OSError):
        return "????-??-?? ??:??"


def iso_text(modified_ns: int) -> str | None:
    """Return date and time in UTC to the nanosecond; None if out of range."""
    moment = _moment(modified_ns)
    return f"{moment.replace(tzinfo=None).isoformat()}.{modified_ns % _SECOND:09}Z" if moment else None


def _moment(modified_ns: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(seconds=modified_ns // _SECOND)
    except OverflowError:
        return None


def human_size(size: int) -> str:
    """Return a size as `ls -h` shows it: rounded up, in at most four characters."""
    if size < 1024:
        return str(size)
    for exponent, unit in enumerate("KMGTPE", 1):
        tenths = -(-10 * size // 1024**exponent)
        if tenths <= 99:
            return f"{tenths // 10}.{tenths % 10}{unit}"
        whole = -(-size // 1024**exponent)
        if whole < 1024:
            return f"{whole}{unit}"
    return str(size)
