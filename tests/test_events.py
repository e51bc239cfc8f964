"""docs/events.md lists every log event."""

from __future__ import annotations

from tests.log_events import documented_events, logged_events


def test_every_event_is_documented_with_its_level_and_fields() -> None:
    logged, documented = set(logged_events()), documented_events()
    assert (logged - documented.keys(), documented.keys() - logged) == (set(), set()), "run: python -m tests.log_events"


def test_every_documented_event_has_a_meaning() -> None:
    assert [event.name for event, meaning in documented_events().items() if not meaning] == []


def test_events_are_short_and_lower_case() -> None:
    names = [event.name for event in logged_events()]
    assert [name for name in names if len(name) > 72 or name[0].isupper() or name.endswith(".")] == []
