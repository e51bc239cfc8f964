"""How far the scrub of a folder has come: a record in the store, so that any gateway can go on (docs/format.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import NAME_HASH_SIZE
from untrusted_s3.store.records import LAST_SECOND

FIRST: Final = bytes(NAME_HASH_SIZE)
_MAX: Final = 2**63 - 1
_SPACE: Final = float(2 ** (8 * NAME_HASH_SIZE))


@dataclass(frozen=True, slots=True)
class ScrubRecord:
    """The scrub of a folder. It goes through the names in the order of their hashes, round after round.

    Attributes:
        writer: The gateway that does it.
        time: When the record was written, in seconds since 1970 by the store's clock.
        began: When the round began.
        position: All names with hashes up to this one are done.
        objects: How many objects were read in this round.
        bytes: Their bytes.
        damaged: How many of them were damaged or missing.
        finished: When the last whole round ended; 0 before the first.
        log_checked: When the log was last checked; 0 for never.
    """

    writer: DeviceID
    time: int
    began: int
    position: bytes = FIRST
    objects: int = 0
    bytes: int = 0
    damaged: int = 0
    finished: int = 0
    log_checked: int = 0

    @property
    def progress(self) -> float:
        """The share of the round that is done, from 0 to 1."""
        return int.from_bytes(self.position) / _SPACE

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "writer": str(self.writer),
            "time": self.time,
            "began": self.began,
            "position": self.position.hex(),
            "objects": self.objects,
            "bytes": self.bytes,
            "damaged": self.damaged,
            "finished": self.finished,
            "log_checked": self.log_checked,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ScrubRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.device_id("writer"),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
            fields.integer("began", minimum=0, maximum=LAST_SECOND),
            bytes.fromhex(fields.hexadecimal("position", digits=2 * NAME_HASH_SIZE)),
            fields.integer("objects", minimum=0, maximum=_MAX),
            fields.integer("bytes", minimum=0, maximum=_MAX),
            fields.integer("damaged", minimum=0, maximum=_MAX),
            fields.integer("finished", minimum=0, maximum=LAST_SECOND),
            fields.integer("log_checked", minimum=0, maximum=LAST_SECOND, default=0),
        )
