"""Rules for the code of the tests and of the bench."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.patience import PATIENCE
from tests.interop.order import SECONDS
from tests.real_time import (
    DEADLINE_EXCEPTIONS,
    EXCEPTIONS,
    in_all_tests,
    of_real_programs,
    parsed,
    real_time,
    short_deadlines,
)

ROOT = Path(__file__).parents[1]

# What the check gives of a node that breaks its rule.
Check = Callable[[ast.AST], str | None]

SETTERS = ("setattr", "getattr", "delattr", "patch", "object")


def imports_a_test_module(node: ast.AST) -> str | None:
    """What several test modules need has a module of its own."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        if any(part.startswith("test_") for part in name.split(".")[1:-1]) and name.startswith("tests."):
            return name
    return None


def uses_a_private_name(node: ast.AST) -> str | None:
    """Tests use what the object under test offers to everyone."""
    if isinstance(node, ast.Attribute) and private(node.attr):
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            return ast.unparse(node)
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if private(alias.name):
                return f"{node.module}.{alias.name}"
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in SETTERS:
        for argument in node.args[:2]:
            if isinstance(argument, ast.Constant) and private(str(argument.value).split(".")[-1]):
                return ast.unparse(node)
    return None


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def counts_turns_of_the_loop(node: ast.AST) -> str | None:
    """How many turns something takes depends on the loop. Wait for a condition instead."""
    if isinstance(node, ast.For) and all(map(is_turn, node.body)):
        return ast.unparse(node)
    body = getattr(node, "body", None)
    if isinstance(body, list) and any(is_turn(one) and is_turn(other) for one, other in itertools.pairwise(body)):
        return "several turns, one after the other"
    return None


def is_turn(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and ast.unparse(statement) in ("await asyncio.sleep(0)", "await sleep(0)")


def changes_a_global(node: ast.AST) -> str | None:
    """Tests give settings to what they start. They change no constant of a module."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in SETTERS:
        for argument in node.args[:2]:
            if isinstance(argument, ast.Constant) and str(argument.value).split(".")[-1].isupper():
                return ast.unparse(node)
        if node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == "limits":
            return ast.unparse(node)
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign):
        targets = [node.target]
    for target in targets:
        if isinstance(target, ast.Attribute) and target.attr.isupper():
            return ast.unparse(node)
    return None


def imports_the_tests(node: ast.AST) -> str | None:
    """The bench measures an installation, so it needs nothing of the tests."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    return next((name for name in names if name.split(".")[0] == "tests"), None)


def found(folder: str, check: Check) -> Iterator[str]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(parsed(path)):
            if what := check(node):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {what}"


@pytest.mark.parametrize(
    ("folder", "check"),
    [
        ("tests", imports_a_test_module),
        ("tests", uses_a_private_name),
        ("tests", counts_turns_of_the_loop),
        ("tests", changes_a_global),
        ("bench", imports_the_tests),
    ],
)
def test_the_rules(folder: str, check: Check) -> None:
    assert list(found(folder, check)) == []


def test_no_test_goes_by_real_time_without_a_reason() -> None:
    assert {place: sources for place, sources in in_all_tests().items() if place not in EXCEPTIONS} == {}


def test_every_exception_is_needed() -> None:
    assert EXCEPTIONS.keys() <= in_all_tests().keys()


def test_the_rule_finds_what_it_should() -> None:
    found = dict(
        real_time(
            ast.parse(
                "async def a(): await asyncio.sleep(0.1)\n"
                "def b(): StoreSettings(timeout=0.5)\n"
                "async def c(): await asyncio.wait_for(work, 5)\n"
                "@virtual_time\nasync def d(): await asyncio.sleep(5)\n"
                "async def e(): await asyncio.sleep(0)\n"
                "def f(): event.wait(600)\n"
            )
        )
    )
    assert found.keys() == {"a", "b", "c"}


def test_a_test_with_real_programs_fails_on_no_machine_for_being_slow() -> None:
    assert PATIENCE >= 300
    assert {place: source for place, source in of_real_programs().items() if place not in DEADLINE_EXCEPTIONS} == {}
    assert DEADLINE_EXCEPTIONS.keys() <= of_real_programs().keys()


def test_the_rule_about_deadlines_finds_what_it_should() -> None:
    found = dict(
        short_deadlines(
            ast.parse(
                "_TIMEOUT = 20.0\n"
                "def a(): connection.settimeout(20)\n"
                "def b(): process.communicate(timeout=30)\n"
                "def c(): deadline = time.monotonic() + 30\n"
                "def d(): gateway.wait_for('it', check, 5)\n"
                "def e(): assert time.monotonic() - began < 30\n"
                "def f(timeout: float = 30): pass\n"
                "def g(): socket.create_connection(address, 10)\n"
                "def h(): device.wait_completion(other, folder, timeout=0.2)\n"
                "def fine(): StoreSettings(timeout=3.0)\n"
                "def fine_too(): process.communicate(timeout=PATIENCE)\n"
                "def and_fine(): assert time.monotonic() - began > 5\n"
            )
        )
    )
    assert found.keys() == {"module", *"abcdefgh"}


def test_the_long_files_of_interop_tests_are_there() -> None:
    assert SECONDS.keys() <= {path.name for path in (ROOT / "tests" / "interop").iterdir()}
    assert list(SECONDS.values()) == sorted(SECONDS.values(), reverse=True)


def test_make_interop_collects_every_interop_test() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("INTEROP :=")]
    named = [ROOT / word for word in line.split()[2:]]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.interop" in path.read_text("utf-8")]
    assert [path for path in marked if not any(path.is_relative_to(one) for one in named)] == [
        ROOT / "tests" / "test_test_code.py"
    ]
