"""What the commands of who has the password share: which folder, its password, and which time is meant."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from untrusted_s3.cli.options import ENVIRONMENT_PREFIX, option
from untrusted_s3.errors import UsageError
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import read_folders

if TYPE_CHECKING:
    from untrusted_s3.vault.folder import Folder

# The context settings of these commands: the log tells them only of trouble.
QUIET: dict[str, Any] = {"default_map": {"log_level": "warning"}}

# A secret is no option: a command line is there for all to see.
PASSWORD_VARIABLE = ENVIRONMENT_PREFIX + "PASSWORD"

Function = TypeVar("Function", bound=Callable[..., Any])

_COLUMNS = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")  # of the many forms of ISO 8601, those that people read


@dataclass(frozen=True, slots=True)
class KeyHolderOptions:
    """The folder's ID, None for the only one there is; its password; and the time that is meant, None for now."""

    folder_id: str | None
    password: str = field(repr=False)
    as_of: datetime | None


def key_holder_options(function: Function) -> Function:
    """--folder, --password-file and --as-of, given to the command as one KeyHolderOptions named `key_holder`."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, folder: str | None, password_file: Path | None, as_of: str | None, **parameters: Any
    ) -> Any:
        moment = parse_time(as_of) if as_of is not None else None
        # Before any event loop runs, which would keep Ctrl-C from the question.
        options = KeyHolderOptions(folder, read_password(folder, password_file), moment)
        return function(*args, key_holder=options, **parameters)

    decorators = [
        option("--folder", metavar="ID", help="The folder's ID in Syncthing; not needed where the store has only one."),
        option(
            "--password-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"The folder's password, if not in {PASSWORD_VARIABLE}; else it is asked for.",
        ),
        option(
            "--as-of",
            metavar="TIME",
            help="As it was then: 2026-11-01 or 2026-11-01T12:00, local unless it ends in Z or +01:00.",
        ),
    ]
    decorated: Callable[..., Any] = wrapper
    for decorate in reversed(decorators):
        decorated = decorate(decorated)
    return cast(Function, decorated)


def parse_time(text: str) -> datetime:
    """A moment, with its time zone, from a date (its beginning) or a date and time. Raises UsageError."""
    try:
        if not _COLUMNS.fullmatch(text):
            raise ValueError
        time = datetime.fromisoformat(text)
        return time if time.tzinfo is not None else time.astimezone()
    except (ValueError, OverflowError):
        raise UsageError(f"--as-of must look like 2026-11-01 or 2026-11-01T12:00, not {text!r}") from None


def read_password(folder_id: str | None, file: Path | None) -> str:
    """The password from its file, the environment, or whoever sits at the terminal. Raises UsageError."""
    password = os.environ.get(PASSWORD_VARIABLE) or None
    if file is not None:
        if password is not None:
            raise UsageError(f"--password-file and {PASSWORD_VARIABLE} are both set: choose one")
        try:
            # An editor or `echo` ends a file with a line break.
            password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            fault = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise UsageError(f"cannot read the password from {file}: {fault}") from None
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise UsageError(f"no password: use --password-file or {PASSWORD_VARIABLE}, or type it on a terminal")
    what = f"Password of the folder {folder_id!r}" if folder_id is not None else "Password of the folder"
    return str(click.prompt(what, hide_input=True, err=True))


@asynccontextmanager
async def opened_folder(bucket: Bucket, options: KeyHolderOptions) -> AsyncIterator[Folder]:
    """The folder that is meant. Raises WrongPassword, UsageError, DataError or StoreError."""
    # Here, so that a gateway's process loads nothing that could decrypt.
    from untrusted_s3.vault.folder import name_folders, open_folder

    folder_id = options.folder_id
    if folder_id is None:
        folders = await read_folders(bucket)
        if len(folders) != 1:
            hint = ": name it with --folder" if folders else ""
            raise UsageError(f"which folder? The store has {name_folders(folders)}{hint}")
        folder_id = folders[0].folder_id
    async with open_folder(bucket, folder_id, options.password, as_of=options.as_of) as folder:
        yield folder
