"""Imports go only downwards, and a gateway never loads anything that could decrypt."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import untrusted_s3

PACKAGE = Path(untrusted_s3.__file__).parent
# Each layer may import those with a smaller number.
LAYERS = {
    "errors": 0,
    "units": 0,
    "limits": 0,
    "settings": 1,
    "counters": 1,
    "problem": 1,
    "progress": 1,
    "threads": 1,
    "read_ahead": 1,
    "addresses": 1,
    "accounts": 1,
    "supervisor": 1,
    "structured_logging": 1,
    "bep": 2,
    "crypto": 3,
    "store": 3,
    "index": 4,
    "objects": 5,
    "identity": 5,
    "connections": 6,
    "sync": 7,
    "gateway": 8,
    "vault": 6,
    "restore": 7,
    "verify": 7,
    "vectors_check": 7,
    "compat": 9,
    "cli": 10,
    "__main__": 11,
}
# What a gateway consists of: it must not be able to decrypt.
ZERO_KNOWLEDGE = ("bep", "store", "index", "objects", "identity", "connections", "sync", "gateway")
SECRET = (
    "untrusted_s3.crypto",
    "untrusted_s3.vault",
    "untrusted_s3.restore",
    "untrusted_s3.verify",
    "untrusted_s3.vectors_check",
    "untrusted_s3.compat",
    "miscreant",
    "nacl",
)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts), path


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports from us, also within functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "untrusted_s3")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "untrusted_s3":
                yield from (f"untrusted_s3.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("untrusted_s3."):
                yield node.module


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_every_module_has_its_layer() -> None:
    assert {layer(name) for name, _ in modules()} <= {*LAYERS, "__init__"}


def test_imports_go_only_downwards() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        for target in imported(path)
        if layer(name) in LAYERS
        and layer(target) in LAYERS
        and layer(target) != layer(name)
        and LAYERS[layer(target)] >= LAYERS[layer(name)]
    ]
    assert wrong == []


def test_only_the_key_holders_side_imports_the_crypto() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        for target in imported(path)
        if layer(name) in ZERO_KNOWLEDGE and target.startswith(SECRET)
    ]
    assert wrong == []


def test_modules_of_a_layer_do_not_import_each_other_in_circles() -> None:
    graph = {name: set(imported(path)) for name, path in modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("layers", [("gateway",), ZERO_KNOWLEDGE])
def test_a_gateway_loads_no_crypto_of_folders(layers: tuple[str, ...]) -> None:
    names = [name for name, _ in modules() if layer(name) in layers]
    assert any(name.endswith(".gateway") for name in names)
    program = "\n".join(
        [
            "import importlib, sys",
            *(f"importlib.import_module({name.removesuffix('.__init__')!r})" for name in names),
            f"print([name for name in sys.modules if name.startswith({SECRET!r})])",
        ]
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"
