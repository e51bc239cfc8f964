"""Errors and exit codes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import untrusted_s3.errors
from untrusted_s3.errors import EXIT_CODES, UntrustedS3Error, exit_code_document

PACKAGE = Path(untrusted_s3.__file__).parent


def all_errors(base: type[UntrustedS3Error] = UntrustedS3Error) -> Iterator[type[UntrustedS3Error]]:
    yield base
    for error in base.__subclasses__():
        yield from all_errors(error)


def test_the_document_is_what_the_code_generates() -> None:
    document = PACKAGE.parent / "docs" / "exit-codes.md"
    assert document.read_text(encoding="utf-8") == exit_code_document(), "run: python -m untrusted_s3.errors"


def test_every_error_has_an_exit_code_with_a_meaning() -> None:
    assert {error.exit_code for error in all_errors()} <= EXIT_CODES.keys()


def test_every_error_is_made_somewhere() -> None:
    """Except base classes, which are there to be caught."""
    made = {
        name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in names_made(node)
    }
    errors = [error.__name__ for error in all_errors() if error.__module__ == untrusted_s3.errors.__name__]
    assert [error for error in errors if error not in made] == []


def names_made(node: ast.AST) -> Iterator[str]:
    """Yield the class that is called or raised without a call, and those that a class is made of."""
    if isinstance(node, ast.ClassDef):
        yield from (base.id for base in node.bases if isinstance(base, ast.Name))
        return
    called = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
    if isinstance(called, ast.Name):
        yield called.id
    elif isinstance(called, ast.Attribute):
        yield called.attr
