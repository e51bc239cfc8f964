"""How many requests each gateway has sent to the store, and how many bytes it got: a record (docs/format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.records import LAST_SECOND
from untrusted_s3.units import DAY

# In the order in which they are shown. Providers have a price for each, or for several together.
KINDS: Final = ("put", "copy", "list", "get", "head", "delete", "other")
# The bytes of objects that the store has sent, beside the numbers of requests.
RECEIVED: Final = "received"
_COUNTED: Final = (*KINDS, RECEIVED)
_OPERATIONS: Final = {
    "PUT": "put",
    "POST": "put",
    "create_multipart_upload": "put",
    "complete_multipart_upload": "put",
    "upload_part_copy": "copy",
    "list_objects_v2": "list",
    "list_multipart_uploads": "list",
    "list_parts": "list",
    "GET": "get",
    "head_object": "head",
    "head_bucket": "head",
    "delete_object": "delete",
    "abort_multipart_upload": "delete",
}
_HOUR: Final = 3600
_DAYS_KEPT: Final = 31
_HOURS_KEPT: Final = 25
_MAX_PERIODS: Final = 1000
_MAX: Final = 2**63 - 1
_WRITE_ID_DIGITS: Final = 32

Counts = Mapping[str, int]


def by_kind(operations: Mapping[str, int]) -> dict[str, int]:
    """Return numbers of requests by KINDS, of such by HTTP method or S3 operation (`store.s3.S3Bucket.requests`)."""
    found = dict.fromkeys(KINDS, 0)
    for operation, count in operations.items():
        found[_OPERATIONS.get(operation, "other")] += count
    return found


def added(*counts: Counts) -> dict[str, int]:
    """Return the sums of numbers of requests, by KINDS, and of bytes (RECEIVED)."""
    return {kind: sum(one.get(kind, 0) for one in counts) for kind in _COUNTED}


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """The requests of one gateway.

    Attributes:
        device_id: The gateway's device ID.
        since: When it began to count, in seconds since 1970 by the store's clock.
        time: When the record was written.
        write_id: 32 hex digits, random, new for each attempt to write.
        hours: The requests of the last hours in which there were any, by their first seconds, newest last. A request
            belongs to the hour in which it was written down.
        days: The same of the last days, in UTC.
    """

    device_id: DeviceID
    since: int
    time: int = 0
    write_id: str = ""
    hours: tuple[tuple[int, Counts], ...] = ()
    days: tuple[tuple[int, Counts], ...] = ()

    def plus(self, counts: Counts, now: float, write_id: str) -> UsageRecord:
        """Return the record with the requests that were sent since, without hours and days that are long past."""
        return UsageRecord(
            self.device_id,
            min(self.since, int(now)),
            int(now),
            write_id,
            _plus(self.hours, counts, now, _HOUR, _HOURS_KEPT),
            _plus(self.days, counts, now, int(DAY), _DAYS_KEPT),
        )

    def last_day(self, now: float) -> dict[str, int]:
        """Return the requests of the last 24 hours, and the bytes that came."""
        return added(*(counts for start, counts in self.hours if start > now - DAY))

    def last_month(self, now: float) -> dict[str, int]:
        """Return the requests of the last 30 days, and the bytes that came."""
        return added(*(counts for start, counts in self.days if start > now - 30 * DAY))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "device_id": str(self.device_id),
            "since": self.since,
            "time": self.time,
            "write_id": self.write_id,
            "hours": [_period(*hour) for hour in self.hours],
            "days": [_period(*day) for day in self.days],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> UsageRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.device_id("device_id"),
            fields.integer("since", minimum=0, maximum=LAST_SECOND),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
            fields.hexadecimal("write_id", digits=_WRITE_ID_DIGITS),
            _periods(fields, "hours"),
            _periods(fields, "days"),
        )


def _plus(
    periods: tuple[tuple[int, Counts], ...], counts: Counts, now: float, length: int, kept: int
) -> tuple[tuple[int, Counts], ...]:
    current = int(now) // length * length
    found = {start: one for start, one in periods if current - kept * length < start}
    found[current] = added(found.get(current, {}), counts)
    return tuple(sorted(found.items()))


def _period(start: int, counts: Counts) -> dict[str, Any]:
    requests = {kind: counts.get(kind, 0) for kind in KINDS}
    return {"start": start, "requests": requests, RECEIVED: counts.get(RECEIVED, 0)}


def _periods(fields: Fields, name: str) -> tuple[tuple[int, Counts], ...]:
    return tuple(
        (
            one.integer("start", minimum=0, maximum=LAST_SECOND),
            _counts(one.object("requests")) | {RECEIVED: one.integer(RECEIVED, minimum=0, maximum=_MAX, default=0)},
        )
        for one in fields.objects(name, max_count=_MAX_PERIODS)
    )


def _counts(fields: Fields) -> dict[str, int]:
    return {kind: fields.integer(kind, minimum=0, maximum=_MAX) for kind in KINDS}
