"""What the user can type is said by the command line, and by nothing below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import untrusted_s3
from untrusted_s3.cli.advice import advise, explain
from untrusted_s3.cli.main import cli
from untrusted_s3.cli.options import Setting, all_commands
from untrusted_s3.errors import (
    AddressUnavailable,
    DataError,
    FolderRemovalUnfinished,
    NoSuchBucket,
    StoreRefused,
    WrongPassphrase,
    WrongPassword,
)

PACKAGE = Path(untrusted_s3.__file__).parent
# `compat` starts commands of this program and of Syncthing: their options are what it is about.
NAME_COMMANDS = ("cli", "compat")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def own_options() -> set[str]:
    commands = all_commands(click.Context(cli))
    parameters = [parameter for command in commands for parameter in command.params if isinstance(parameter, Setting)]
    return {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}


def command_pattern() -> re.Pattern[str]:
    """Finds the name of a command, with or without the name of the program."""
    names = "|".join([*cli.list_commands(click.Context(cli)), "check", "repair"])
    return re.compile(rf"untrusted-s3 ({names})\b|\b(run|use|see) ({names})\b|\bdoctor\b|\bpip install\b")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """All string constants of a module, parts of f-strings included, but for docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_lower_layer_names_an_option_or_a_command() -> None:
    options, commands = own_options(), command_pattern()
    assert {"--store", "--listen", "--single-writer", "--as-of"} <= options
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in NAME_COMMANDS
        for line, text in texts(path)
        if options & set(OPTION.findall(text)) or commands.search(text)
    ]
    assert found == []


def test_all_options_and_commands_of_the_advice_exist() -> None:
    options, names = own_options(), set(cli.list_commands(click.Context(cli)))
    text = " ".join(text for _, text in texts(PACKAGE / "cli" / "advice.py"))
    assert set(OPTION.findall(text)) <= options
    assert set(re.findall(r"untrusted-s3 ([a-z]+)", text)) <= names


@pytest.mark.parametrize(("purpose", "option"), [("devices", "--listen"), ("http", "--http")])
def test_advice_follows_the_attributes_of_an_error(purpose: str, option: str) -> None:
    error = AddressUnavailable("127.0.0.1:1", purpose, "in use")  # type: ignore[arg-type]
    assert explain(error) == f"cannot listen on 127.0.0.1:1: in use; {advise(error)}"
    assert f"choose another with {option}" in str(advise(error))


def test_names_in_commands_are_quoted() -> None:
    assert str(advise(FolderRemovalUnfinished("my folder"))).endswith("folders remove 'my folder' again")


def test_the_nearest_class_decides() -> None:
    assert advise(WrongPassword("no")) is None
    assert "--identity-name" in str(advise(WrongPassphrase("no")))
    assert advise(StoreRefused("no")) is None
    assert "--create-bucket" in str(advise(NoSuchBucket("no")))


def test_an_error_without_advice_is_its_message() -> None:
    assert advise(DataError("damaged")) is None
    assert explain(DataError("damaged")) == "damaged"
