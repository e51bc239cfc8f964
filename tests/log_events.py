"""The log events of the program, found in its sources; and docs/events.md, which lists them.

`python -m tests.log_events` writes docs/events.md: it keeps the meanings that are there, and leaves those of new events
empty.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import untrusted_s3

PACKAGE = Path(untrusted_s3.__file__).parent
DOCUMENT = PACKAGE.parent / "docs" / "events.md"
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}
_ROW = re.compile(r"\| (?P<name>.+?) \| (?P<level>\w+) \| (?P<fields>.*?) \| ?(?P<meaning>.*?) ?\|")
_FIELD = re.compile(r"`(\w+)`")
_ORDER = list(dict.fromkeys(LEVELS.values()))


@dataclass(frozen=True)
class Event:
    """One event: its name, its level, and the names of all fields that it may have."""

    name: str
    level: str
    fields: frozenset[str]


class NotAnEvent(Exception):
    """A use of a logger that is not a call with a constant event and named fields."""


def logged_events() -> list[Event]:
    """All events in the sources. Raises NotAnEvent."""
    fields: dict[tuple[str, str], frozenset[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for event in _events_of(path):
            key = event.name, event.level
            fields[key] = fields.get(key, frozenset()) | event.fields
    return [Event(name, level, found) for (name, level), found in sorted(fields.items())]


def _events_of(path: Path) -> Iterator[Event]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = {id(call.func): call for call in ast.walk(tree) if isinstance(call, ast.Call)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_logger"):
            continue
        call = calls.get(id(node))
        where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
        if call is None or node.attr not in LEVELS or len(call.args) != 1:
            raise NotAnEvent(f"{where}: a logger is only to be called with an event and named fields")
        (name,) = call.args
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            raise NotAnEvent(f"{where}: the name of an event must be a constant")
        keywords = [keyword.arg for keyword in call.keywords]
        if None in keywords:
            raise NotAnEvent(f"{where}: the fields of an event must be named")
        yield Event(name.value, LEVELS[node.attr], frozenset(str(keyword) for keyword in keywords) - {"exc_info"})


def documented_events() -> dict[Event, str]:
    """The rows of docs/events.md and their meanings."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        row = _ROW.fullmatch(line)
        if row is not None and row["name"] != "event":
            event = Event(row["name"], row["level"], frozenset(_FIELD.findall(row["fields"])))
            found[event] = row["meaning"]
    return found


def _write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, heading, _ = text.partition("| event | level | fields | meaning |\n|---|---|---|---|\n")
    meanings = {event.name: meaning for event, meaning in documented_events().items()}
    rows = [
        f"| {event.name} | {event.level} | {', '.join(f'`{name}`' for name in sorted(event.fields))} |"
        f" {meanings.get(event.name, '')} |\n"
        for event in sorted(logged_events(), key=lambda event: (event.name, _ORDER.index(event.level)))
    ]
    DOCUMENT.write_text(before + heading + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    _write()
