"""The requests of all gateways of a store, added up from what each has written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from untrusted_s3.errors import DataError
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.listing import list_usage
from untrusted_s3.store.records import read_record
from untrusted_s3.store.usage import KINDS, RECEIVED, UsageRecord, added
from untrusted_s3.units import DAY

_MONTH_DAYS: Final = 30.0


@dataclass(slots=True)
class RequestStats:
    """The requests that gateways have sent.

    Attributes:
        gateways: How many gateways have written down requests of the last 30 days.
        since: When the first of them began to count, in seconds since 1970 UTC; None if none did.
        day: The requests of the last 24 hours, by kind, and the bytes that the store has sent (RECEIVED).
        month: Those of the last 30 days.
        days: How many days, of the last 30, were counted.
        unreadable: Records that cannot be read.
    """

    gateways: int = 0
    since: int | None = None
    day: Mapping[str, int] = field(default_factory=added)
    month: Mapping[str, int] = field(default_factory=added)
    days: float = 0.0
    unreadable: list[Problem] = field(default_factory=list)

    @property
    def monthly(self) -> dict[str, float]:
        """About how much there is in 30 days. If less than a day was counted, that counts as a day."""
        scale = _MONTH_DAYS / max(self.days, 1.0)
        return {kind: count * scale for kind, count in self.month.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "gateways": self.gateways,
            "since": datetime.fromtimestamp(self.since, UTC).isoformat() if self.since is not None else None,
            "day": {kind: self.day[kind] for kind in KINDS},
            "month": {kind: self.month[kind] for kind in KINDS},
            "received_bytes": {"day": self.day[RECEIVED], "month": self.month[RECEIVED]},
        }


async def read_requests(bucket: Bucket) -> RequestStats:
    """Add up what all gateways have written down. Raises StoreError."""
    stats = RequestStats()
    async for key in list_usage(bucket):
        try:
            record = await read_record(bucket, key, UsageRecord.from_json)
        except DataError as error:
            stats.unreadable.append(Problem(key, str(error).removeprefix(f"{key} ")))
            continue
        now = bucket.now()
        if record is None or record.time < now - _MONTH_DAYS * DAY:
            continue
        stats.gateways += 1
        stats.since = min(record.since, stats.since if stats.since is not None else record.since)
        stats.day, stats.month = added(stats.day, record.last_day(now)), added(stats.month, record.last_month(now))
        stats.days = min((now - stats.since) / DAY, _MONTH_DAYS)
    return stats
