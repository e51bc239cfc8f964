"""What `restore` and `verify` share: which files, how much memory, and the list of what went wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from untrusted_s3 import limits
from untrusted_s3.cli.options import option
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.problem import Problem

Function = TypeVar("Function", bound=Callable[..., Any])


def bulk_options(function: Function) -> Function:
    """--path, given to the command as a Selection named `selection`, and --buffer-memory as `memory` in bytes."""

    @functools.wraps(function)
    def wrapper(*args: Any, path: tuple[str, ...], buffer_memory: int, **parameters: Any) -> Any:
        # Here, so that a gateway's process loads nothing that could decrypt.
        from untrusted_s3.vault.selection import Selection

        return function(*args, selection=Selection(path), memory=buffer_memory * limits.MIB, **parameters)

    decorated: Callable[..., Any] = wrapper
    for decorate in (
        option(
            "--buffer-memory",
            type=click.IntRange(min=limits.MIN_BUFFER_MEMORY // limits.MIB),
            default=limits.DEFAULT_READ_MEMORY // limits.MIB,
            show_default=True,
            metavar="MIB",
            help="Memory for data on its way.",
        ),
        option(
            "--path",
            multiple=True,
            metavar="GLOB",
            help="Only what has this path, or lies below; may be repeated.  [default: everything]",
        ),
    ):
        decorated = decorate(decorated)
    return cast(Function, decorated)


def print_problems(title: str, problems: Iterable[Problem]) -> None:
    """A list on standard error; names in it cannot control the terminal."""
    problems = list(problems)
    if problems:
        click.echo(f"{title}:", err=True)
    for problem in problems:
        click.echo(f"  {printable(problem.path)}: {printable(problem.reason)}", err=True)


def counted(number: int, noun: str) -> str:
    """A number and a noun in the right form, as in "1 file" or "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
