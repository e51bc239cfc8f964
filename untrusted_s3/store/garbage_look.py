"""When somebody last compared all objects of a folder with its log, and what of the log there was then.

Such a look reads the whole log, so it is taken only when something may have become garbage. Only costs depend on this
record: without it somebody looks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments
from untrusted_s3.store.records import LAST_SECOND, read_record, write_record

_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class LogExtent:
    """Which parts of a log the store has. As long as these are the same, the log names the same objects.

    Attributes:
        digest: 32 hex digits that stand for the positions of all segments and checkpoints, kept ones included.
        segments: How many segments there are.
    """

    digest: str
    segments: int


async def list_extent(bucket: Bucket, keys: FolderKeys) -> LogExtent:
    """Return which parts of a folder's log the store has. Raises StoreError."""
    segments = await list_segments(bucket, keys)
    lines = [f"segments {some.start} {some.stop}" for some in segments.ranges]
    lines += [f"checkpoint {position}" for position in sorted(await list_checkpoints(bucket, keys))]
    lines += [f"kept {position} {seconds}" for position, seconds in sorted((await list_kept(bucket, keys)).values())]
    return LogExtent(hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS], len(segments))


@dataclass(frozen=True, slots=True)
class Look:
    """The last look.

    Attributes:
        time: When it began, by the store's clock, in seconds since 1970 UTC.
        log: The digest of the log's extent then; empty where the look did not come to its end.
    """

    time: int
    log: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"time": self.time, "log": self.log}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Look:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.integer("time", minimum=0, maximum=LAST_SECOND), fields.text("log", max_length=_DIGITS, default="")
        )


async def read_look(bucket: Bucket, keys: FolderKeys) -> Look | None:
    """Return the last look at a folder, or None. Raises DataError if the record is damaged, and StoreError."""
    return await read_record(bucket, keys.garbage_look, Look.from_json)


async def write_look(bucket: Bucket, keys: FolderKeys, look: Look) -> None:
    """Write a look down. Raises StoreError."""
    await write_record(bucket, keys.garbage_look, look.to_json())
