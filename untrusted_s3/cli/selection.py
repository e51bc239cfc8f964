"""Options of commands that read many files: which files, and how much memory for their data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from untrusted_s3.cli.options import buffer_memory_option, current_invocation, option
from untrusted_s3.units import MIB

Function = TypeVar("Function", bound=Callable[..., Any])


def selection_options(function: Function) -> Function:
    """Add --path, given to the command as a Selection `selection`, and --buffer-memory, as ReadSettings `reading`."""

    @functools.wraps(function)
    def wrapper(*args: Any, path: tuple[str, ...], buffer_memory: int, **parameters: Any) -> Any:
        # Imported here, because a gateway's process must load nothing that can decrypt.
        from untrusted_s3.vault.selection import Selection

        reading = replace(current_invocation().settings.reading, memory=buffer_memory * MIB)
        return function(*args, selection=Selection(path), reading=reading, **parameters)

    decorated = buffer_memory_option("Memory for data being read.")(wrapper)
    decorated = option(
        "--path",
        multiple=True,
        metavar="GLOB",
        help="Only files at or below this path; may be repeated.  [default: everything]",
    )(decorated)
    return cast(Function, decorated)
