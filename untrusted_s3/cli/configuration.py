"""The configuration file: TOML whose keys are named like the options."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from untrusted_s3.errors import UsageError


def read_configuration(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the keys of a configuration file and their values. Sections are only for the reader's eye.

    An underscore in a key stands for a hyphen. Raises UsageError if the file is not TOML, or if a key is not in
    `known` or appears twice.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    values: dict[str, Any] = {}
    sections = [value for value in document.values() if isinstance(value, dict)]
    for section in [document, *sections]:
        for name, value in section.items():
            if isinstance(value, dict) and section is document:
                continue
            key = name.replace("_", "-")
            if key not in known or key == "config":
                raise UsageError(f"{path}: unknown key {name!r}; keys are named like the options of the command line")
            if key in values:
                raise UsageError(f"{path}: {name!r} is given twice")
            values[key] = value
    return values
