"""The records of what a folder's log has lost for good: written by a healing (sync/healing.py), until the operator has
taken note of them (docs/format.md)."""

from __future__ import annotations

import secrets
from collections.abc import Container, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import AnswerTooLong, CredentialsRefused, DataError, NoSuchBucket, StoreError
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import MAX_POSITION
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import FolderKeys, is_damaged_name
from untrusted_s3.store.listing import list_losses
from untrusted_s3.store.records import INDEX_ID_DIGITS, LAST_SECOND, read_record, write_record

# Of one record. What is more goes into another one.
MAX_ITEMS: Final = 1000

_ID_DIGITS = 32
_MAX_SEQUENCE = 2**63 - 1
# Of all records of a folder, what is lost.
_MAX_READ = 10_000
_LOGGED = 20
_logger = structlog.get_logger()


def _new_id() -> str:
    return secrets.token_hex(_ID_DIGITS // 2)


@dataclass(frozen=True, slots=True)
class LostSegments:
    """Segments of a log that are lost, and that nobody knew who healed the log.

    Attributes:
        first: The first position.
        last: The last position; `first - 1` where no segment is missing, but the one at `first` continues others than
            those before it.
        sequence: The last sequence number before them.
        entries: How many sequence numbers after that were in them; 0 where that is not known.
    """

    first: int
    last: int
    sequence: int
    entries: int

    def __str__(self) -> str:
        if self.last < self.first:
            return f"segments before {self.first} that the one there continues"
        which = f"segment {self.first}" if self.last == self.first else f"segments {self.first} to {self.last}"
        return which + (f" with {self.entries} entries" if self.entries else "")

    def is_at_seam(self, positions: Container[int]) -> bool:
        """Return whether no segment is missing, and the one that does not follow has one of these positions."""
        return self.last < self.first and self.first in positions

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"first": self.first, "last": self.last, "sequence": self.sequence, "entries": self.entries}

    @classmethod
    def from_fields(cls, fields: Fields) -> LostSegments:
        """Read the JSON object. Raises InvalidFieldError."""
        first = fields.integer("first", minimum=1, maximum=MAX_POSITION)
        return cls(
            first,
            fields.integer("last", minimum=first - 1, maximum=MAX_POSITION),
            fields.integer("sequence", minimum=0, maximum=_MAX_SEQUENCE),
            fields.integer("entries", minimum=0, maximum=_MAX_SEQUENCE),
        )


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Entries that a gateway knew and that are not in the log, because others have renewed it since.

    Attributes:
        index_id: The id of the index that it knew.
        sequence: Up to which sequence number.
        entries: How many of its entries are not in the log.
    """

    index_id: int
    sequence: int
    entries: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"index_id": _index_id_text(self.index_id), "sequence": self.sequence, "entries": self.entries}

    @classmethod
    def from_fields(cls, fields: Fields) -> Forgotten:
        """Read the JSON object. Raises InvalidFieldError."""
        return cls(
            _index_id(fields),
            fields.integer("sequence", minimum=0, maximum=_MAX_SEQUENCE),
            fields.integer("entries", minimum=1, maximum=_MAX_SEQUENCE),
        )


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a device said that it knew of the folder's index, when the log had less.

    Attributes:
        index_id: The index's id.
        sequence: Up to which sequence number the device knew it.
        known: Up to which one the log had it.
    """

    index_id: int
    sequence: int
    known: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"index_id": _index_id_text(self.index_id), "sequence": self.sequence, "known": self.known}

    @classmethod
    def from_fields(cls, fields: Fields) -> Claimed:
        """Read the JSON object. Raises InvalidFieldError."""
        return cls(
            _index_id(fields),
            fields.integer("sequence", minimum=0, maximum=_MAX_SEQUENCE),
            fields.integer("known", minimum=0, maximum=_MAX_SEQUENCE),
        )


@dataclass(frozen=True, slots=True)
class LossRecord:
    """What a healing has found lost.

    Attributes:
        position: The position of the log at which the healing was about to renew it.
        writer: The gateway.
        time: When it was found, in seconds since 1970 by the store's clock.
        index_id: The id of the folder's index that the log had then; 0 before the first renewal.
        segments: The segments that are lost.
        damaged: The names below `damaged` of segments that were damaged.
        forgotten: What the gateway knew and the log has not.
        claimed: What a device knew and the log had not.
        loss_id: 32 hex digits, random.
    """

    position: int
    writer: DeviceID
    time: int
    index_id: int = 0
    segments: tuple[LostSegments, ...] = ()
    damaged: tuple[str, ...] = ()
    forgotten: Forgotten | None = None
    claimed: Claimed | None = None
    loss_id: str = field(default_factory=_new_id)

    @property
    def size(self) -> int:
        """How much it says is lost."""
        return len(self.segments) + len(self.damaged) + sum(one is not None for one in (self.forgotten, self.claimed))

    def without(self, said: Container[Hashable]) -> LossRecord:
        """Return a record of the rest, where `said` has what identifies a part of it (`texts`)."""
        return replace(
            self,
            segments=tuple(lost for lost in self.segments if lost not in said),
            damaged=tuple(name for name in self.damaged if name not in said),
            forgotten=self.forgotten if self._forgotten_by not in said else None,
            claimed=self.claimed if self._claimed_by not in said else None,
        )

    def parts(self) -> Iterator[LossRecord]:
        """Yield records of MAX_ITEMS at most that say the same; none if nothing is lost."""
        for start in range(0, self.size, MAX_ITEMS):
            part = replace(
                self,
                segments=self.segments[start : start + MAX_ITEMS],
                damaged=self.damaged[start : start + MAX_ITEMS],
                forgotten=self.forgotten if start == 0 else None,
                claimed=self.claimed if start == 0 else None,
                loss_id=_new_id(),
            )
            if part.size:
                yield part

    @property
    def _forgotten_by(self) -> Hashable:
        return self.forgotten and (self.writer, self.forgotten.index_id, self.forgotten.sequence)

    @property
    def _claimed_by(self) -> Hashable:
        return self.claimed and (self.claimed.index_id, self.claimed.sequence)

    def texts(self, keys: FolderKeys) -> dict[Hashable, str]:
        """Return what is lost in words, by what identifies it: records of two gateways may say the same."""
        found: dict[Hashable, str] = {
            lost: f"the log has lost {lost}: what was in it and no device has is lost" for lost in self.segments
        }
        for name in self.damaged:
            found[name] = f"a segment of the log was damaged: it is kept as {keys.damaged_segments}{name}"
        if (forgotten := self.forgotten) is not None:
            found[self._forgotten_by] = (
                f"{forgotten.entries} entries that the gateway {self.writer} knew are not in the log any more"
            )
        if (claimed := self.claimed) is not None:
            found[self._claimed_by] = (
                f"a device knew the folder's index up to sequence {claimed.sequence}, and the log had it up to"
                f" {claimed.known}: what was in it and no device has is lost"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; ids of indexes as 16 hex digits."""
        return {
            "position": self.position,
            "id": self.loss_id,
            "writer": str(self.writer),
            "time": self.time,
            "index_id": _index_id_text(self.index_id),
            "segments": [lost.to_json() for lost in self.segments],
            "damaged": list(self.damaged),
            "forgotten": self.forgotten.to_json() if self.forgotten is not None else None,
            "claimed": self.claimed.to_json() if self.claimed is not None else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LossRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        damaged = fields.texts("damaged", max_count=MAX_ITEMS, max_length=64)
        if not all(map(is_damaged_name, damaged)):
            fields.refuse("damaged", "is not a list of names of damaged segments")
        forgotten, claimed = fields.optional_object("forgotten"), fields.optional_object("claimed")
        return cls(
            fields.integer("position", minimum=1, maximum=MAX_POSITION),
            fields.device_id("writer"),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
            _index_id(fields),
            tuple(LostSegments.from_fields(one) for one in fields.objects("segments", max_count=MAX_ITEMS)),
            damaged,
            Forgotten.from_fields(forgotten) if forgotten is not None else None,
            Claimed.from_fields(claimed) if claimed is not None else None,
            fields.hexadecimal("id", digits=_ID_DIGITS),
        )


class LossReader:
    """Reads the records of a folder's losses. They never change, so each is read once.

    Attributes:
        keys: The folder's keys.
        found: The records, by their keys in the order of their positions.
        unreadable: What else lies there, or cannot be read now.
        damaged: The keys of those of it that are damaged or foreign.
    """

    def __init__(self, bucket: Bucket, keys: FolderKeys) -> None:
        self._bucket = bucket
        self.keys = keys
        self.found: dict[str, LossRecord] = {}
        self.unreadable: list[Problem] = []
        self.damaged: list[str] = []

    async def read(self) -> None:
        """Read what the store has and was not read before; forget what it no longer has.

        One key that the store does not give now, and too many, count as unreadable. Raises another StoreError.
        """
        try:
            listed = await list_losses(self._bucket, self.keys)
        except AnswerTooLong as error:
            self.unreadable = [Problem(self.keys.losses, str(error))]
            return
        unreadable: list[Problem] = []
        self.damaged.clear()
        size = 0
        for key in listed:
            try:
                record = self.found.get(key) or await self._read(key)
            except (NoSuchBucket, CredentialsRefused):
                raise
            except DataError as error:
                self.damaged.append(key)
                unreadable.append(Problem(key, str(error).removeprefix(f"{key} ")))
                continue
            except StoreError as error:
                unreadable.append(Problem(key, str(error)))
                continue
            if record is None:
                continue
            self.found[key] = record
            size += record.size
            if size > _MAX_READ:
                text = f"there are more than {_MAX_READ} losses, and the rest is not read"
                unreadable.append(Problem(self.keys.losses, text))
                break
        self.found = {key: self.found[key] for key in listed if key in self.found}
        self.unreadable = unreadable

    async def _read(self, key: str) -> LossRecord | None:
        if not self.keys.is_loss(key):
            raise DataError("it is not a key of this program")
        record = await read_record(self._bucket, key, LossRecord.from_json)
        if record is not None and key != (own := self.keys.loss(record.position, record.loss_id)):
            raise DataError(f"its content belongs to {own}")
        return record

    def texts(self) -> dict[Hashable, str]:
        """Return what is lost in words, by what identifies it."""
        return {what: text for record in self.found.values() for what, text in record.texts(self.keys).items()}


class LossNotes:
    """Writes down what healings of a folder's log find lost. `writer` is this gateway."""

    def __init__(self, bucket: Bucket, keys: FolderKeys, writer: DeviceID) -> None:
        self._bucket = bucket
        self._keys = keys
        self._writer = writer

    async def write(
        self,
        last_position: int,
        index_id: int,
        *,
        segments: Iterable[LostSegments] = (),
        damaged: Iterable[str] = (),
        forgotten: Forgotten | None = None,
        claimed: Claimed | None = None,
    ) -> tuple[LossRecord, ...]:
        """Write what a healing has found lost, as far as the store's records do not say it. Return all of it.

        `last_position` and `index_id` are those of the log that is to be renewed, and `damaged` are keys. Raises
        StoreError.
        """
        names = tuple(key.removeprefix(self._keys.damaged_segments) for key in damaged)
        position, time = min(last_position + 1, MAX_POSITION), int(self._bucket.now())
        found = LossRecord(position, self._writer, time, index_id, tuple(segments), names, forgotten, claimed)
        if not found.size:
            return ()
        reader = LossReader(self._bucket, self._keys)
        await reader.read()
        for problem in reader.unreadable[:_LOGGED]:
            _logger.error("record of losses not readable", key=problem.path, reason=problem.reason)
        # Where a healing that wrote its record was interrupted, its renewal continues no segment that there was.
        renewed = {record.position for record in reader.found.values()}
        found = replace(found, segments=tuple(lost for lost in found.segments if not lost.is_at_seam(renewed)))
        for part in found.without(reader.texts()).parts():
            await write_record(self._bucket, self._keys.loss(position, part.loss_id), part.to_json())
        return (found,) if found.size else ()


async def forget_losses(bucket: Bucket, keys: FolderKeys, noted: Iterable[str]) -> int:
    """Delete records of losses by their keys, but no foreign objects. Return how many. Raises StoreError."""
    count = 0
    for key in filter(keys.is_loss, noted):
        await bucket.delete(key)
        count += 1
    return count


def _index_id(fields: Fields) -> int:
    return int(fields.hexadecimal("index_id", digits=INDEX_ID_DIGITS), 16)


def _index_id_text(index_id: int) -> str:
    return f"{index_id:0{INDEX_ID_DIGITS}x}"
