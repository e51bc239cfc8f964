"""Run one target under atheris: python -m tests.fuzz TARGET [OPTIONS OF LIBFUZZER]. See README.md."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

# Not a dependency of the project: install it where you run this.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["untrusted_s3.bep", "tests.fuzz.targets"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Fuzz until stopped. New inputs go to a temporary folder; the corpus in the repository is only read."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"which target? one of {', '.join(TARGETS)}")
    name = sys.argv[1]
    found = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
    options = [f"-artifact_prefix={found}/", *sys.argv[2:], found, str(CORPUS / name)]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


main()
