"""Which earlier states of a folder are kept beyond its history.

The rules, such as "daily 7, weekly 5, monthly 12, yearly 3", are in a record of the store, or of a folder, so that all
gateways agree (docs/format.md, "Kept states").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from typing import Any, Final, TypeVar

from untrusted_s3.errors import UsageError
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import read_record, write_record

Key = TypeVar("Key")
MAX_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How many days, weeks, months and years have their last state kept.

    Days and so on without a state do not count. They are those of UTC; weeks begin on Monday.
    """

    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __bool__(self) -> bool:
        return any(asdict(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {number}" for name, number in asdict(self).items() if number) or "nothing"

    @classmethod
    def parse(cls, text: str) -> KeepRules:
        """Read a text such as "daily 7, weekly 5", or "nothing". Raises UsageError."""
        names = [field.name for field in fields(cls)]
        words = text.replace(",", " ").split()
        if words == ["nothing"]:
            return cls()
        numbers = dict(zip(words[::2], words[1::2], strict=False))
        is_well = len(words) == 2 * len(numbers) > 0 and numbers.keys() <= set(names)
        if not is_well or not all(number.isascii() and number.isdigit() for number in numbers.values()):
            raise UsageError(f"{text!r} is no rule such as: daily 7, weekly 5, monthly 12, yearly 3")
        if any(int(number) > MAX_KEPT for number in numbers.values()):
            raise UsageError(f"at most {MAX_KEPT} of each can be kept")
        return cls(**{name: int(number) for name, number in numbers.items()})

    def wanted(self, times: Mapping[Key, float]) -> set[Key]:
        """Return which of some states are kept, given the time of each in seconds since 1970 UTC."""
        found: set[Key] = set()
        newest_first = sorted(times, key=lambda key: times[key], reverse=True)
        for number, period in (
            (self.daily, lambda day: day),
            (self.weekly, lambda day: day.isocalendar()[:2]),
            (self.monthly, lambda day: (day.year, day.month)),
            (self.yearly, lambda day: day.year),
        ):
            found |= _last_of_each(newest_first, times, number, period)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> KeepRules:
        """Read the JSON object. Raises InvalidFieldError."""
        found = Fields(value)
        return cls(*(found.integer(field.name, minimum=0, maximum=MAX_KEPT) for field in fields(cls)))


def _last_of_each(
    newest_first: Iterable[Key], times: Mapping[Key, float], number: int, period: Callable[[date], object]
) -> set[Key]:
    last: dict[object, Key] = {}
    for key in newest_first:
        if len(last) == number:
            # Those of the oldest period are all behind its last one.
            break
        last.setdefault(period(datetime.fromtimestamp(times[key], UTC).date()), key)
    return set(last.values())


@dataclass(frozen=True, slots=True)
class KeptRules:
    """The rules that hold for a folder.

    Attributes:
        rules: The rules.
        age: Seconds since they were written, by the store's clock; infinite if nobody has written any.
        is_own: Whether they are the folder's own, and not those of the store.
    """

    rules: KeepRules = KeepRules()
    age: float = float("inf")
    is_own: bool = False


async def read_rules(bucket: Bucket, keys: FolderKeys | None) -> KeptRules:
    """Return the rules for a folder, or those of the store (None). Raises DataError or StoreError."""
    own = [keys.retention] if keys is not None else []
    for key in (*own, layout.RETENTION):
        ages = [item.age async for item in bucket.list(key) if item.key == key]
        if not ages:
            continue
        rules = await read_record(bucket, key, KeepRules.from_json)
        if rules is not None:
            return KeptRules(rules, ages[0], key != layout.RETENTION)
    return KeptRules()


async def write_rules(bucket: Bucket, keys: FolderKeys | None, rules: KeepRules) -> None:
    """Write the rules of a folder, or of the store. Raises StoreError."""
    await write_record(bucket, keys.retention if keys is not None else layout.RETENTION, rules.to_json())
