"""The files in `vectors/` are those that their generators write."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vectors import plan, standards
from tests.vectors.documents import DIRECTORY
from tests.waiting import PATIENCE
from untrusted_s3.crypto.names import to_path
from untrusted_s3.vectors_check.cases import default_directory


def test_an_installation_has_the_files_of_the_repository() -> None:
    assert default_directory().resolve() == DIRECTORY


def test_what_comes_from_standards_is_written_again(tmp_path: Path) -> None:
    documents = standards.documents()
    for document in documents:
        document.write(directory=tmp_path)
    for document in documents:
        name = f"{document.operation}.json"
        assert (tmp_path / name).read_bytes() == (DIRECTORY / name).read_bytes(), name


def test_names_have_the_sizes_that_they_say() -> None:
    for size in plan.NAME_SIZES:
        name = plan.sized_name(size)
        assert len(name.encode()) == size
        assert all(0 < len(part) <= 255 for part in name.split("/"))
    assert {plan.NAME_SIZES[0], plan.NAME_SIZES[-1]} == {1, 700}


def test_every_number_of_components_is_there_with_its_shortest_and_its_longest_name() -> None:
    def components(size: int) -> int:
        return to_path(bytes(size + 16)).count("/")

    edges = [size for size in range(1, 700) if components(size) != components(size + 1)]
    assert len(edges) == 5
    assert {*edges, *(size + 1 for size in edges)} <= set(plan.NAME_SIZES)


@pytest.mark.parametrize("alteration", ["", '[b""]|[]', '"big"|"little"'])
def test_the_example_of_the_readme_works_and_finds_mistakes(alteration: str) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DIRECTORY / "README.md").read_text(), re.DOTALL)
    if alteration:
        right, wrong = alteration.split("|")
        assert right in program
        program = program.replace(right, wrong)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=DIRECTORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == (1 if alteration else 0), done.stdout + done.stderr
    assert done.stderr == ""


def test_the_readme_names_every_operation_and_field() -> None:
    from untrusted_s3.vectors_check.operations import KINDS

    table = {line.split("`")[1]: line for line in (DIRECTORY / "README.md").read_text().splitlines() if "| `" in line}
    assert set(table) == set(KINDS)
    text = (DIRECTORY / "README.md").read_text()
    for operation, fields in KINDS.items():
        for field in fields:
            assert f"`{field}`" in table[operation] or f"`{field}`" in text, f"{operation}: {field}"
