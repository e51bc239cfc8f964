"""Files of vectors: valid ones, and what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from untrusted_s3.errors import UsageError
from untrusted_s3.vectors_check.cases import default_directory, load_group
from untrusted_s3.vectors_check.operations import KINDS, OPERATIONS
from untrusted_s3.vectors_check.run import load_groups

CASE = {"id": "one", "sources": ["here"], "valid": True, "key": "00", "nonce": "0102", "subkey": "ff"}
DOCUMENT = {"operation": "hchacha20", "sources": {"here": "This test"}, "cases": [CASE]}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_bytes_are_decoded(tmp_path: Path) -> None:
    group = load_group(write(tmp_path / "a.json", DOCUMENT), KINDS)
    (case,) = group.cases
    assert group.operation == "hchacha20"
    assert (case.id, case.sources, case.comment, case.valid) == ("one", ("here",), "", True)
    assert case.fields == {"key": b"\0", "nonce": b"\1\2", "subkey": b"\xff"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operation": "rot13"}, "unknown operation 'rot13'"),
        ({"cases": []}, "no cases"),
        ({"cases": [CASE, CASE]}, "two cases have one id"),
        ({"cases": [{**CASE, "sources": ["elsewhere"]}]}, "one: its sources"),
        ({"cases": [{**CASE, "sources": []}]}, "one: its sources"),
        ({"cases": [{**CASE, "valid": "yes"}]}, "one: valid"),
        ({"cases": [{**CASE, "key": "0g"}]}, "one: field 'key'"),
        ({"cases": [{**CASE, "key": 5}]}, "one: field 'key'"),
        ({"cases": [{**CASE, "colour": "red"}]}, "one: field 'colour'"),
        ({"cases": [{name: CASE[name] for name in CASE if name != "subkey"}]}, "one: it has no subkey"),
        ({"cases": [{name: CASE[name] for name in CASE if name != "valid"}]}, "valid"),
        ({"cases": ["one"]}, "TypeError"),
    ],
)
def test_invalid_cases(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_group(write(tmp_path / "a.json", {**DOCUMENT, **change}), KINDS)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '"text"'])
def test_invalid_documents(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UsageError, match=r"a\.json"):
        load_group(tmp_path / "a.json", KINDS)


def test_directories(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no vectors"):
        load_groups(tmp_path)
    write(tmp_path / "a.json", DOCUMENT)
    write(tmp_path / "b.json", DOCUMENT)
    with pytest.raises(UsageError, match="two files"):
        load_groups(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_group(tmp_path / "missing.json", KINDS)


def test_the_vectors_of_the_repository() -> None:
    groups = load_groups(default_directory())
    assert [group.operation for group in groups] == list(OPERATIONS), "a file for each operation"
    for group in groups:
        assert any(case.valid for case in group.cases)
        assert any(not case.valid for case in group.cases), f"nothing to refuse in {group.operation}"
    sources = {source for group in groups for case in group.cases for source in case.sources}
    assert sources == {
        "rfc5297",
        "rfc5869",
        "rfc7914",
        "xchacha",
        "syncthing-tests",
        "syncthing-1.19.2",
        "syncthing-1.29.5",
        "derived",
    }
    size = sum(path.stat().st_size for path in default_directory().iterdir())
    assert size < 2_000_000
