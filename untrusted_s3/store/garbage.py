"""Objects that are to be deleted: the records of them, and what writers of a folder's log must know of these.

Nothing is deleted at once. An object that the log does not name is written to a record, as a *candidate*. It is deleted
a grace time later, if the log still does not name it (upkeep/garbage.py). Meanwhile somebody may want to use it, or may
write it once more under the same key. These rules keep any entry from losing its object. The names are those of
`GarbageRules`; ages are those of records, by the store's clock.

1. A writer's segment names an object that the folder does not name at that position, neither in the current version of
   the name nor in a dissent, only if the writer, at most `look` seconds before, by its own clock, has looked at all
   records, and the object was in none of them; and has written, read or found the object, also at most `look` seconds
   before. Else the content is looked for or written once more, under another name if the object was a candidate.
2. An object is deleted only while its record's age is between `grace` and `grace` + `sweep`, and only if a log that was
   read after the beginning of that time does not name it: in no checkpoint and no segment that is there.
3. A record is deleted when it is older than `grace` + `sweep` + `margin`, and never changes before. `margin` is longer
   than `look`, so an object that a writer has seen, and whose record it then does not find, was not deleted between.

So an object that is named after its record was written is named by a writer that looked before that. Its segment is a
presigned PUT, which the store refuses 900 s after it was signed, and its look was no request from the future. The
segment is there within `look` and half an hour of the record, long before `grace` has passed, and rule 2 sees it. A
deletion is a presigned request too, and by its own clock nobody signs one after the time of rule 2. So none arrives
after the record is gone, when its objects may be written again under their keys. Where a gateway's clock stands still
or is wrong, it signs in the past or in the future, and the store refuses both.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from untrusted_s3.errors import DataError
from untrusted_s3.store import format
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.layout import NAME_HASH_SIZE, FolderKeys, is_object_name
from untrusted_s3.store.listing import up_to
from untrusted_s3.store.records import LAST_SECOND, read_record, write_record

_logger = structlog.get_logger()

_ID_DIGITS = 32
_MAX_NAME_LENGTH = 200
# Two days of a million candidates a day, and as many marks.
MAX_GARBAGE_KEYS: Final = 2000
_MAX_BYTES = 2**62
# How many records are read at once.
_READ_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class GarbageRules:
    """Times in seconds. All gateways on a bucket must use the same ones.

    Attributes:
        grace: How long an object is a candidate before it may be deleted.
        sweep: For how long after that the objects of a record may be deleted.
        margin: How much longer the record is kept.
        look: How old a writer's look at the records, and at an object that it wants to name, may be.
        lifetime: How long after signing the store accepts a deletion.
    """

    grace: float = format.GARBAGE_GRACE
    sweep: float = format.GARBAGE_SWEEP
    margin: float = format.GARBAGE_MARGIN
    look: float = format.GARBAGE_LOOK
    lifetime: int = format.APPEND_LIFETIME


GARBAGE_RULES: Final = GarbageRules()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An object that the log does not name.

    Attributes:
        name_hash: The hash of the file's encrypted name.
        object_name: The name of the object.
        size: Its bytes.
    """

    name_hash: bytes
    object_name: str
    size: int


@dataclass(frozen=True, slots=True)
class GarbageRecord:
    """Candidates, as one look at the bucket found them; none if that found none.

    Attributes:
        record_id: 32 hex digits, random.
        time: When they were found, by the store's clock, in seconds since 1970 UTC.
        candidates: At most MAX_CANDIDATES objects.
    """

    record_id: str
    time: int
    candidates: tuple[Candidate, ...]

    @classmethod
    def new(cls, time_of_day: float, candidates: Iterable[Candidate]) -> GarbageRecord:
        """Make a record with a new id."""
        return cls(secrets.token_hex(_ID_DIGITS // 2), int(time_of_day), tuple(candidates))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        objects = [
            {"name_hash": one.name_hash.hex(), "object": one.object_name, "size": one.size} for one in self.candidates
        ]
        return {"id": self.record_id, "time": self.time, "objects": objects}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GarbageRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.hexadecimal("id", digits=_ID_DIGITS),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
            tuple(map(_candidate, fields.objects("objects", max_count=format.MAX_CANDIDATES))),
        )


def _candidate(fields: Fields) -> Candidate:
    name = fields.text("object", max_length=_MAX_NAME_LENGTH)
    if not is_object_name(name):
        fields.refuse("object", "is no name of an object")
    return Candidate(
        bytes.fromhex(fields.hexadecimal("name_hash", digits=2 * NAME_HASH_SIZE)),
        name,
        fields.integer("size", minimum=0, maximum=_MAX_BYTES),
    )


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was deleted of one record.

    Attributes:
        time: When, by the store's clock, in seconds since 1970 UTC.
        objects: How many objects.
        bytes: Their bytes.
        named: How many are named by the log again, and stay.
    """

    time: int
    objects: int
    bytes: int
    named: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"time": self.time, "objects": self.objects, "bytes": self.bytes, "named": self.named}


@dataclass(frozen=True, slots=True)
class ListedRecord:
    """A record of a listing.

    Attributes:
        record_id: Its id.
        age: Seconds since it was written, by the store's clock.
        is_swept: Whether somebody has deleted all that is to be deleted of it.
    """

    record_id: str
    age: float
    is_swept: bool


class ListedRecords(list[ListedRecord]):
    """The records of a listing, the oldest first.

    Attributes:
        look_age: Seconds since the last look was written down (store/garbage_look.py); infinite if none is.
    """

    def __init__(self, records: Iterable[ListedRecord], look_age: float) -> None:
        super().__init__(records)
        self.look_age = look_age


async def list_garbage(bucket: Bucket, keys: FolderKeys) -> ListedRecords:
    """Return the records of a folder's candidates. Raises StoreError."""
    ages: dict[str, float] = {}
    swept: set[str] = set()
    look_age = float("inf")
    async for item in up_to(MAX_GARBAGE_KEYS, bucket.list(keys.garbage), keys.garbage):
        if item.key == keys.garbage_look:
            look_age = item.age
        parsed = keys.parse_garbage(item.key)
        if parsed is None:
            continue
        if parsed[1]:
            swept.add(parsed[0])
        else:
            ages[parsed[0]] = item.age
    found = [ListedRecord(record_id, age, record_id in swept) for record_id, age in ages.items()]
    return ListedRecords(sorted(found, key=lambda one: -one.age), look_age)


async def read_garbage(bucket: Bucket, keys: FolderKeys, record_id: str) -> GarbageRecord | None:
    """Return a record, or None if it is missing or has no bytes.

    Raises DataError if it is damaged, and StoreError.
    """
    key = keys.garbage_record(record_id)
    record = await read_record(bucket, key, GarbageRecord.from_json)
    if record is not None and record.record_id != record_id:
        raise DataError(f"{key} cannot be read: its content belongs to {keys.garbage_record(record.record_id)}")
    return record


async def write_garbage(bucket: Bucket, keys: FolderKeys, record: GarbageRecord) -> None:
    """Write a new record. Raises StoreError."""
    await write_record(bucket, keys.garbage_record(record.record_id), record.to_json(), create=True)


async def write_swept(bucket: Bucket, keys: FolderKeys, record_id: str, sweep: Sweep) -> None:
    """Write down that all that is to be deleted of a record was. Raises StoreError."""
    await write_record(bucket, keys.garbage_swept(record_id), sweep.to_json())


def digest(name_hash: bytes, object_name: str) -> int:
    """Return 64 bits that stand for an object, as SQLite keeps them. Two objects hardly ever have the same."""
    hashed = hashlib.blake2b(name_hash + object_name.encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), signed=True)


class Candidates:
    """The candidates of a folder, for those who write its log.

    Each takes 8 bytes of memory. Records never change, so each is read once.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        clock: Callable[[], float] = time.time,
        rules: GarbageRules = GARBAGE_RULES,
    ) -> None:
        """`clock` gives seconds since 1970 UTC. It is the one by which requests are signed."""
        self._bucket = bucket
        self._keys = keys
        self._clock = clock
        self._rules = rules
        self._known: dict[str, array[int]] = {}
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    def __bool__(self) -> bool:
        return any(self._known.values())

    @property
    def are_known(self) -> bool:
        """Whether the last look is recent enough for a segment that is signed now (rule 1)."""
        return 0 <= self._clock() - self._looked <= self._rules.look

    async def look(self, *, within: float = 0.0) -> None:
        """Read the records that are new, unless the last look was within so many seconds. Raises StoreError."""
        async with self._looking:
            asked = self._clock()
            if not 0 <= asked - self._looked < within:
                await self._look()
                self._looked = asked

    async def _look(self) -> None:
        listed = [one.record_id for one in await list_garbage(self._bucket, self._keys)]
        new = [record_id for record_id in listed if record_id not in self._known]
        for start in range(0, len(new), _READ_AT_ONCE):
            await asyncio.gather(*map(self._read, new[start : start + _READ_AT_ONCE]))
        self._known = {record_id: self._known[record_id] for record_id in listed if record_id in self._known}

    async def _read(self, record_id: str) -> None:
        try:
            record = await read_garbage(self._bucket, self._keys, record_id)
        except DataError as error:
            # Nobody deletes anything because of it either.
            _logger.error("record of garbage unreadable", error=str(error))
            self._known[record_id] = array("q")
            return
        if record is not None:  # one of no bytes may still get some
            digests = sorted(digest(one.name_hash, one.object_name) for one in record.candidates)
            self._known[record_id] = array("q", digests)

    def has(self, name_hash: bytes, object_name: str) -> bool:
        """Return whether an object was a candidate at the last look."""
        if not self._known:
            return False
        wanted = digest(name_hash, object_name)
        return any(_has(digests, wanted) for digests in self._known.values())


def _has(digests: array[int], wanted: int) -> bool:
    place = bisect_left(digests, wanted)
    return place < len(digests) and digests[place] == wanted
