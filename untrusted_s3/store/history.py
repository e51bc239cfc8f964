"""How much of the folders' history is kept: how far back `--as-of` can reach (docs/format.md, "Cleaning up").

It is in a record of the store, or of a folder, so that all gateways agree: none cleans up what another one promises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import LAST_SECOND, create_or_read, read_record, write_record
from untrusted_s3.units import DAY

MAX_HISTORY_DAYS: Final = 100_000
# How long after a change nothing is cleaned up, so that it can be taken back.
GRACE: Final = 1 * DAY


@dataclass(frozen=True, slots=True)
class History:
    """How much history is kept.

    Attributes:
        days: So many days, at least 1.
        time: When that was changed, by the store's clock, in seconds since 1970 UTC; 0 if it never was.
        is_own: Whether the folder has a record of its own. That of the store holds otherwise.
    """

    days: int
    time: int
    is_own: bool = False

    def seconds(self, now: float) -> float:
        """Return how many seconds of the history may not be cleaned up now, by the store's clock.

        For a day after a change that is all.
        """
        return self.days * DAY if now - self.time >= GRACE else math.inf

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"days": self.days, "time": self.time}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> History:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.integer("days", minimum=1, maximum=MAX_HISTORY_DAYS),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
        )


async def read_history(bucket: Bucket, keys: FolderKeys | None) -> History | None:
    """Return what holds for a folder, or for the store (None); None if no record says it.

    Raises DataError if a record is damaged, and StoreError.
    """
    if keys is not None:
        own = await read_record(bucket, keys.history, History.from_json)
        if own is not None:
            return History(own.days, own.time, is_own=True)
    return await read_record(bucket, layout.HISTORY, History.from_json)


async def write_history(bucket: Bucket, keys: FolderKeys | None, days: int) -> None:
    """Decide how much history of a folder, or of the store, is kept. Raises StoreError."""
    key = keys.history if keys is not None else layout.HISTORY
    await write_record(bucket, key, History(days, int(bucket.now())).to_json())


async def settle_history(bucket: Bucket, days: int, *, is_wanted: bool) -> History:
    """Return how much history the store keeps. Write `days` down if nobody has decided it.

    If it `is_wanted`, a shorter history is made as long. A longer one stays: another gateway may promise it. Raises
    DataError or StoreError.
    """
    new = History(days, 0)
    found = await create_or_read(bucket, layout.HISTORY, new.to_json(), History.from_json)
    if found.days >= days or not is_wanted:
        return found
    await write_history(bucket, None, days)
    return History(days, int(bucket.now()))
