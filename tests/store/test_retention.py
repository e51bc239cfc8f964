"""Rules of what is kept beyond the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.simulated import SimulatedBucket
from untrusted_s3.errors import DataError, UsageError
from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.retention import KeepRules, KeptRules, read_rules, write_rules

KEYS = FolderKeys.of("folder")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("daily 7, weekly 5, monthly 12, yearly 3", KeepRules(7, 5, 12, 3)),
        ("yearly 3 daily 7", KeepRules(daily=7, yearly=3)),
        ("weekly 0", KeepRules()),
        ("nothing", KeepRules()),
    ],
)
def test_rules_as_text(text: str, rules: KeepRules) -> None:
    assert KeepRules.parse(text) == rules
    assert KeepRules.parse(str(rules)) == rules


@pytest.mark.parametrize(
    "text",
    ["", "daily", "daily x", "daily -1", "hourly 3", "daily 3 daily 4", "daily 1001", "7 daily", "daily 7 nothing"],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError):
        KeepRules.parse(text)


def kept(rules: str, days: list[datetime]) -> list[str]:
    """Return the dates of those of some moments that are kept, with their hours."""
    found = KeepRules.parse(rules).wanted({day: day.timestamp() for day in days})
    return [f"{day:%Y-%m-%d %H}" for day in sorted(found)]


def test_the_last_of_each_period_is_kept() -> None:
    first = datetime(2024, 1, 1, 12, tzinfo=UTC)
    days = [first + timedelta(hours=12 * number) for number in range(2 * 366)]  # until 2024-12-31 at 24:00
    assert kept("daily 3", days) == ["2024-12-30 12", "2024-12-31 12", "2025-01-01 00"]
    assert kept("weekly 2", days) == ["2024-12-29 12", "2025-01-01 00"]
    assert kept("monthly 3", days) == ["2024-11-30 12", "2024-12-31 12", "2025-01-01 00"]
    assert kept("yearly 9", days) == ["2024-12-31 12", "2025-01-01 00"]
    assert kept("nothing", days) == []
    assert len(kept("daily 7, weekly 5, monthly 12, yearly 3", days)) == 7 + 5 + 12 - 2 - 1 - 1


def test_periods_without_a_state_do_not_count() -> None:
    days = [datetime(2020 + year, 3, 5, tzinfo=UTC) for year in range(5)]
    for unit in ("daily", "weekly", "monthly", "yearly"):
        assert kept(f"{unit} 2", days) == ["2023-03-05 00", "2024-03-05 00"]


async def test_a_folder_has_the_rules_of_the_store_or_its_own() -> None:
    bucket = SimulatedBucket()
    assert await read_rules(bucket, KEYS) == KeptRules()
    await write_rules(bucket, None, KeepRules(daily=7))
    assert await read_rules(bucket, KEYS) == KeptRules(KeepRules(daily=7), 0.0)
    await write_rules(bucket, KEYS, KeepRules())
    assert await read_rules(bucket, KEYS) == KeptRules(KeepRules(), 0.0, is_own=True)
    assert (await read_rules(bucket, None)).rules == KeepRules(daily=7)
    assert set(bucket.store.objects) == {layout.RETENTION, KEYS.retention}
    bucket.store.put(KEYS.retention, b'{"daily": "many"}')
    with pytest.raises(DataError):
        await read_rules(bucket, KEYS)
