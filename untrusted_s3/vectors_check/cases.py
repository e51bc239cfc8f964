"""Files of known answers, in the format that `vectors/README.md` describes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import untrusted_s3
from untrusted_s3.errors import UsageError

Fields = Mapping[str, Any]

_GENERAL = {"id", "sources", "comment", "valid"}


@dataclass(frozen=True, slots=True)
class Case:
    """One known answer; if `valid` is false, an input that must be refused. Bytes in `fields` are decoded."""

    id: str
    sources: tuple[str, ...]
    comment: str
    valid: bool
    fields: Fields


@dataclass(frozen=True, slots=True)
class Group:
    """All cases of one operation."""

    operation: str
    cases: tuple[Case, ...]


def default_directory() -> Path:
    """Return the directory of the vectors of this installation."""
    return Path(untrusted_s3.__file__).parent / "vectors"


def load_group(path: Path, kinds: Mapping[str, Mapping[str, str]]) -> Group:
    """Return the cases of one file. `kinds` has the kind of each field of each operation.

    A kind that ends in `?` marks a field that a valid case may lack. Raises UsageError for a file of another format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    try:
        operation = document["operation"]
        if operation not in kinds:
            raise ValueError(f"unknown operation {operation!r}")
        cases = tuple(_case(case, kinds[operation], document["sources"]) for case in document["cases"])
        if not cases:
            raise ValueError("no cases")
        if len({case.id for case in cases}) < len(cases):
            raise ValueError("two cases have one id")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is not a file of vectors: {type(error).__name__}: {error}") from error
    return Group(operation, cases)


def _case(document: dict[str, Any], kinds: Mapping[str, str], sources: Mapping[str, str]) -> Case:
    name, cited, valid = document["id"], document["sources"], document["valid"]
    if not cited or not set(cited) <= set(sources):
        raise ValueError(f"{name}: its sources are not among those of the file")
    if not isinstance(valid, bool):
        raise TypeError(f"{name}: valid must be true or false")
    fields = {}
    for field, value in document.items():
        if field in _GENERAL:
            continue
        try:
            fields[field] = _DECODERS[kinds[field].rstrip("?")](value)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: field {field!r}: {error}") from error
    missing = [field for field, kind in kinds.items() if field not in fields and not kind.endswith("?")]
    if valid and missing:
        raise ValueError(f"{name}: it has no {', '.join(missing)}")
    return Case(name, tuple(cited), document.get("comment", ""), valid, fields)


def _typed(*types: type) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError(f"of type {type(value).__name__}")
        return value

    return decode


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "text": _typed(str),
    "integer": _typed(int),
    "integer or null": _typed(int, type(None)),
    "object": _typed(dict),
    "bytes": bytes.fromhex,
    "list of bytes": lambda values: [bytes.fromhex(value) for value in values],
}
