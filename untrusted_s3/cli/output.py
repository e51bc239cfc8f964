"""What commands print: tables, JSON and lists of problems."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import click

from untrusted_s3.errors import FAILED
from untrusted_s3.problem import Problem
from untrusted_s3.structured_logging import printable
from untrusted_s3.units import size_text as size_text


def print_json(value: Any) -> None:
    """Print one JSON document. What the encoding of standard output lacks is escaped."""
    click.echo(_json_text(value))


def print_json_with_list(value: dict[str, Any], key: str, items: Iterable[Any]) -> None:
    """Print one JSON object with `items` as a list under a last key, without having all of them in memory."""
    first = True
    for item in items:
        head = f'{_json_text(value)[:-2]},\n "{key}": [\n' if first else ",\n"
        click.echo(head + textwrap.indent(_json_text(item), "  "), nl=False)
        first = False
    if first:
        print_json({**value, key: []})
    else:
        click.echo("\n ]\n}")


def _json_text(value: Any) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=1)
    return text


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns, numbers aligned right. Control characters in texts are escaped."""
    cells = [[str(header) for header in headers]]
    cells += [[printable(f"{value:,}" if type(value) is int else str(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        numeric = [type(value) is int for value in (rows[number - 1] if number else (rows[0] if rows else headers))]
        texts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        click.echo("  ".join(texts).rstrip())


def print_problems(title: str, problems: Iterable[Problem]) -> None:
    """Print a list to standard error, if there are problems. Control characters in names are escaped."""
    problems = list(problems)
    if problems:
        click.echo(f"{title}:", err=True)
    for problem in problems:
        click.echo(f"  {printable(problem.path)}: {printable(problem.reason)}", err=True)


def report_unreadable(unreadable: Sequence[Problem]) -> None:
    """Print records of the store that cannot be read, if there are any, and end the command with exit code 1."""
    if unreadable:
        print_problems("unreadable in the store", unreadable)
        raise click.exceptions.Exit(FAILED)


def counted(number: int, noun: str) -> str:
    """Return a number and a noun in the right form, as in "1 file" or "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
