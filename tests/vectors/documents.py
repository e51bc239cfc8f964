"""The files in `vectors/`, in a stable order and form, so differences can be reviewed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[2] / "vectors"

STANDARDS = {
    "rfc5297": "RFC 5297, Synthetic Initialization Vector (SIV) Authenticated Encryption, appendix A",
    "rfc5869": "RFC 5869, HMAC-based Extract-and-Expand Key Derivation Function (HKDF), appendix A",
    "rfc7914": "RFC 7914, The scrypt Password-Based Key Derivation Function, section 12",
    "xchacha": "draft-irtf-cfrg-xchacha-03, XChaCha: eXtended-nonce ChaCha, section 2.2.1 and appendix A.3.1",
    "syncthing-tests": "Syncthing's own known answers, lib/protocol/encryption_test.go",
}
DERIVED = "Made from another case as the comment says; several independent libraries agree"

Fields = dict[str, Any]


class Document:
    """The cases of one operation."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self._cases: dict[str, dict[str, Any]] = {}

    def valid(self, case_id: str, sources: Sequence[str], fields: Fields, comment: str = "") -> None:
        """Return a case whose fields belong together."""
        self._add(case_id, sources, comment, True, fields)

    def invalid(self, case_id: str, fields: Fields, comment: str, sources: Sequence[str] = ("derived",)) -> None:
        """Return a case that must be refused."""
        self._add(case_id, sources, comment, False, fields)

    def altered(self, case_id: str, fields: Fields, changes: Mapping[str, Fields]) -> None:
        """Return cases that must be refused: a valid case with one of the changes each."""
        for name, change in changes.items():
            self.invalid(f"{case_id}-{name}", {**fields, **change}, f"{case_id}, altered")

    def write(self, captured: Mapping[str, str] | None = None, directory: Path = DIRECTORY) -> None:
        """Write the file; `captured` names the sources that are neither standards nor derived."""
        known = {**STANDARDS, **(captured or {}), "derived": DERIVED}
        cited = {source for case in self._cases.values() for source in case["sources"]}
        document = {
            "operation": self.operation,
            "sources": {source: text for source, text in known.items() if source in cited},
            "cases": list(self._cases.values()),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (directory / f"{self.operation}.json").write_text(text, encoding="utf-8")

    def _add(self, case_id: str, sources: Sequence[str], comment: str, valid: bool, fields: Fields) -> None:
        general = {"id": case_id, "sources": list(sources), "comment": comment, "valid": valid}
        encoded = {name: _encoded(value) for name, value in fields.items()}
        case = {name: value for name, value in {**general, **encoded}.items() if name != "comment" or value}
        known = self._cases.get(case_id)
        if known is not None and {**known, "sources": []} == {**case, "sources": []}:
            known["sources"] += [source for source in sources if source not in known["sources"]]
            return
        assert known is None, f"two different cases are called {case_id}"
        self._cases[case_id] = case


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    """Return the data with one bit flipped. A negative position counts from the end."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return [item.hex() for item in value] if isinstance(value, list) else value
