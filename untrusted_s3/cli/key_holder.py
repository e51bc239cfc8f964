"""Options of commands that read a folder with its password: which folder, the password, and at which time."""

from __future__ import annotations

import calendar
import functools
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from untrusted_s3.cli.options import ENVIRONMENT_PREFIX, apply_options, option
from untrusted_s3.cli.secret import read_secret
from untrusted_s3.errors import UsageError
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import read_folders

if TYPE_CHECKING:
    from untrusted_s3.vault.entry import DamagedEntry, Entry
    from untrusted_s3.vault.folder import Folder

# Context settings of commands whose output is data: log only warnings and errors.
QUIET: dict[str, Any] = {"default_map": {"log_level": "warning"}}

# The password is not an option, because every user of the machine can see a command line.
PASSWORD_VARIABLE = ENVIRONMENT_PREFIX + "PASSWORD"

# Of so many deletions that are not authentic, the store is asked for data of earlier versions.
_MOST_ASKED = 100

Function = TypeVar("Function", bound=Callable[..., Any])

# Of the forms of ISO 8601, those with separators
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_UNITS = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


@dataclass(frozen=True, slots=True)
class KeyHolderOptions:
    """Which folder to read.

    Attributes:
        folder_id: The folder's ID; None if the store has only one folder.
        password: The folder's password.
        as_of: Read the folder as it was then; None for now.
    """

    folder_id: str | None
    password: str = field(repr=False)
    as_of: datetime | None


def key_holder_options(function: Function) -> Function:
    """Add --folder, --password-file and --as-of, given to the command as KeyHolderOptions `key_holder`."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, folder: str | None, password_file: Path | None, as_of: str | None, **parameters: Any
    ) -> Any:
        moment = parse_time(as_of) if as_of is not None else None
        # Asked for before an event loop runs: in one, Ctrl-C would not end the question.
        password = read_password(folder, password_file)
        for what, text in (("the folder ID", folder or ""), ("the password", password)):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise UsageError(f"{what} is not UTF-8")
        options = KeyHolderOptions(folder, password, moment)
        return function(*args, key_holder=options, **parameters)

    decorators = [
        option("--folder", metavar="ID", help="The folder's ID in Syncthing; needed if the store has several folders."),
        option(
            "--password-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"File with the folder's password. Without it and {PASSWORD_VARIABLE}, the password is asked for.",
        ),
        option(
            "--as-of",
            metavar="TIME",
            help="The folder as it was then: 2026-11-01 or 2026-11-01T12:00, local time unless it ends in Z or +01:00.",
        ),
    ]
    return cast(Function, apply_options(decorators, wrapper))


def parse_time(text: str, name: str = "--as-of") -> datetime:
    """Return the moment that a date (its beginning), a date and time, or a text such as "2 days ago" means.

    `today` and `yesterday` are the beginnings of these days. It has a time zone. `name` is that of the option. Raises
    UsageError.
    """
    try:
        ago = moment_ago(text, datetime.now().astimezone())
        if ago is not None:
            return ago
        if not _TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name} must look like 2026-11-01, 2026-11-01T12:00, yesterday or '2 days ago', not {text!r}"
        ) from None


def moment_ago(text: str, now: datetime) -> datetime | None:
    """Return the moment that `yesterday`, `today` or "3 hours ago" means; None for another text. Raises ValueError."""
    words = text.lower().split()
    if words in (["today"], ["yesterday"]):
        day = (now - timedelta(days=words == ["yesterday"])).date()
        return datetime.combine(day, time()).astimezone()
    if len(words) != 3 or words[2] != "ago" or not (words[0].isascii() and words[0].isdigit()):
        return None
    number, unit = int(words[0]), words[1].removesuffix("s")
    if unit in _UNITS:
        return now - number * _UNITS[unit]
    if unit in ("month", "year"):
        months = now.year * 12 + now.month - 1 - number * (12 if unit == "year" else 1)
        last = calendar.monthrange(months // 12, months % 12 + 1)[1]
        return now.replace(year=months // 12, month=months % 12 + 1, day=min(now.day, last))
    return None


def read_password(folder_id: str | None, file: Path | None) -> str:
    """Return the password from its file, the environment or the terminal. Raises UsageError."""
    password = os.environ.get(PASSWORD_VARIABLE) or None
    if file is not None:
        if password is not None:
            raise UsageError(f"--password-file and {PASSWORD_VARIABLE} are both set: choose one")
        password = read_secret(file, "password")
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise UsageError(f"no password: use --password-file or {PASSWORD_VARIABLE}, or type it on a terminal")
    what = f"Password of the folder {folder_id!r}" if folder_id is not None else "Password of the folder"
    return str(click.prompt(what, hide_input=True, err=True))


@asynccontextmanager
async def opened_folder(bucket: Bucket, options: KeyHolderOptions) -> AsyncIterator[Folder]:
    """Open the folder for as long as the context lasts. Raises WrongPassword, UsageError, DataError or StoreError."""
    # Imported here, because a gateway's process must load nothing that can decrypt.
    from untrusted_s3.vault.folder import open_folder

    folder_id = await chosen_folder(bucket, options.folder_id)
    async with open_folder(bucket, folder_id, options.password, as_of=options.as_of) as folder:
        yield folder


async def chosen_folder(bucket: Bucket, folder_id: str | None) -> str:
    """Return the ID that was given, or the one of the store's only folder. Raises UsageError or StoreError."""
    from untrusted_s3.vault.folder import name_folders

    if folder_id is not None:
        return folder_id
    folders = await read_folders(bucket)
    if len(folders) != 1:
        hint = ": name it with --folder" if folders else ""
        raise UsageError(f"which folder? The store has {name_folders(folders)}{hint}")
    return folders[0].folder_id


def noting_deletions(
    entries: Iterable[Entry | DamagedEntry], false_deletions: list[str]
) -> Iterator[Entry | DamagedEntry]:
    """Yield entries, and add the encrypted names of those that are falsely announced as deleted to the list."""
    from untrusted_s3.vault.entry import DamagedEntry

    for entry in entries:
        if isinstance(entry, DamagedEntry) and entry.deleted:
            false_deletions.append(entry.encrypted_name)
        yield entry


def tell_conflicts(number: int, advice: str) -> None:
    """Say on standard error how many conflicts there are, and how to see the other versions."""
    what = "1 other version of a file is" if number == 1 else f"{number:,} other versions of files are"
    click.echo(f"{what} in conflict with the one that wins: {advice}", err=True)


async def tell_earlier_versions(folder: Folder, false_deletions: list[str]) -> None:
    """Say on standard error whether the store has data of files that are falsely announced as deleted."""
    asked = false_deletions[:_MOST_ASKED]
    found = [name for name in asked if await folder.has_data(name)]
    if found:
        number = f"at least {len(found):,}" if len(asked) < len(false_deletions) else f"{len(found):,}"
        click.echo(
            f"{number} of {len(false_deletions):,} names that are falsely announced as deleted still have data in the"
            " store: --as-of with an earlier time reads it, as far as the history goes back",
            err=True,
        )
