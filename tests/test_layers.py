"""Imports go only downwards, a gateway never loads anything that could decrypt, and long tasks have one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import untrusted_s3
from tests.waiting import PATIENCE

PACKAGE = Path(untrusted_s3.__file__).parent
# A layer may import those with a smaller number. Layers with the same number do not know each other.
LAYERS = {
    "errors": 0,
    "units": 0,
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
    "identity": 4,
    "objects": 5,
    "connections": 6,
    "sync": 6,
    "check": 6,
    "upkeep": 6,
    "vault": 6,
    "gateway": 7,
    "repair": 7,
    "restore": 7,
    "verify": 7,
    "way_back": 7,
    "replication": 7,
    "stats": 7,
    "vectors_check": 7,
    "native_disk": 8,
    "compat": 8,
    "cli": 9,
    "__main__": 10,
}
# Layers that a gateway consists of: it must not be able to decrypt.
ZERO_KNOWLEDGE = (
    *("bep", "store", "index", "objects", "identity", "connections"),
    *("sync", "upkeep", "check", "repair", "stats", "gateway"),
)
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
# What may start tasks. A task that is to run until the gateway stops belongs to the supervisor.
TASK_OWNERS = {
    "untrusted_s3.supervisor": "runs every long task",
    "untrusted_s3.threads": "waits for one call in a thread",
    "untrusted_s3.read_ahead": "the reads that are ahead of one consumer",
    "untrusted_s3.cli.progress": "the progress line of one command",
    "untrusted_s3.cli.signals": "the work of one command, which a signal cancels",
    "untrusted_s3.cli.commands.serve": "the trial of the store, which ends before the gateway listens",
    "untrusted_s3.store.folder_removal": "the deletions of one removal",
    "untrusted_s3.vault.concurrency": "the files of one command",
}
STARTERS = ("create_task", "ensure_future", "run_coroutine_threadsafe")


def modules() -> dict[str, Path]:
    """Return all modules and packages by their full names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Yield what a module imports of this package, also within functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "untrusted_s3")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "untrusted_s3":
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield name if name in MODULES else node.module


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def loaded_secrets(program: str) -> str:
    """Return which modules with secrets a program has loaded at its end."""
    program += f"\nimport sys; print([name for name in sys.modules if name.startswith({SECRET!r})])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_module_has_its_layer() -> None:
    assert {layer(name) for name in MODULES} == {*LAYERS, ""}


def test_imports_go_only_downwards() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
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
        for name, path in MODULES.items()
        for target in imported(path)
        if layer(name) in ZERO_KNOWLEDGE and target.startswith(SECRET)
    ]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: set(imported(path)) & MODULES.keys() - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in graph[name]:
                visit(target, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("layers", [("gateway",), ZERO_KNOWLEDGE])
def test_a_gateway_loads_no_crypto_of_folders(layers: tuple[str, ...]) -> None:
    names = [name for name in MODULES if layer(name) in layers]
    assert "untrusted_s3.gateway.gateway" in names
    imports = "".join(f"importlib.import_module({name!r})\n" for name in names)
    assert loaded_secrets(f"import importlib\n{imports}") == "[]"


@pytest.mark.parametrize(
    "program",
    [
        "import untrusted_s3.gateway.gateway",
        "from untrusted_s3.cli.main import main; main(['serve', '--help'])",
    ],
)
def test_neither_the_gateway_nor_its_command_loads_what_decrypts(program: str) -> None:
    assert loaded_secrets(program) == "[]"


def test_only_owners_of_short_work_start_tasks_beside_the_supervisor() -> None:
    starters = {
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
        if (node.attr if isinstance(node, ast.Attribute) else node.id) in STARTERS
    }
    assert starters == TASK_OWNERS.keys()
