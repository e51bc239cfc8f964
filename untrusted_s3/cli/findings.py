"""A list of what a check has found. There may be a million, so it is in a file if it is long."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Any

import click

from untrusted_s3.problem import Finding, Kind
from untrusted_s3.structured_logging import printable

_IN_MEMORY = 4 << 20
_NOTES_PRINTED = 100


class Findings:
    """What was found, in the order in which it was.

    Attributes:
        counts: How many of each kind.
    """

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._file = SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8")  # noqa: SIM115

    def add(self, finding: Finding) -> None:
        """Add one."""
        self.counts[finding.kind] += 1
        self._file.write(json.dumps([finding.kind, finding.path, finding.reason, finding.name]) + "\n")

    @property
    def damage(self) -> int:
        """How many of them say that something is damaged or missing that should be there now."""
        return sum(count for kind, count in self.counts.items() if kind.is_damage)

    @property
    def notes(self) -> int:
        """How many there are beside these."""
        return self.counts.total() - self.damage

    def __iter__(self) -> Iterator[Finding]:
        self._file.seek(0)
        for line in self._file:
            kind, path, reason, name = json.loads(line)
            yield Finding(path, reason, Kind(kind), name)

    def to_json(self) -> Iterator[dict[str, Any]]:
        """Yield all of them as JSON objects."""
        for finding in self:
            yield {
                "kind": finding.kind.value,
                "damage": finding.kind.is_damage,
                "path": finding.path,
                "encrypted_name": finding.name or None,
                "reason": finding.reason,
            }

    def print(self) -> None:
        """Print them to standard error, damage first, and of notes the first ones. Control characters are escaped."""
        for is_damage, title, most in ((True, "damaged", None), (False, "noted", _NOTES_PRINTED)):
            of_kind = (finding for finding in self if finding.kind.is_damage == is_damage)
            for number, finding in enumerate(islice(of_kind, most)):
                if not number:
                    click.echo(f"{title}:", err=True)
                click.echo(f"  {printable(finding.path)}: {printable(finding.reason)}", err=True)
        if self.notes > _NOTES_PRINTED:
            click.echo(f"  and {self.notes - _NOTES_PRINTED:,} more; --json prints them", err=True)
