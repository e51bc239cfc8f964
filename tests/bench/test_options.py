"""The options of the bench that the scheduled workflow and the documents name exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from bench.__main__ import main

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "bench.yml"


def named() -> list[str]:
    scheduled = re.findall(r"^ +options: (.*)$", WORKFLOW.read_text(), re.MULTILINE)
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = [each for path in documents for each in re.findall(r'make bench BENCH="([^"]*)"', path.read_text())]
    assert scheduled and shown
    return scheduled + shown


@pytest.mark.parametrize("options", named())
def test_options_exist(options: str) -> None:
    words = shlex.split(options.replace("PROGRAM", sys.executable))
    main.make_context("bench", ["--syncthing", sys.executable, *words])
