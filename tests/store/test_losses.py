"""The records of what a folder's log has lost: what is read and refused, and that nothing is said twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from tests.file_infos import device
from tests.simulated import Fault, SimulatedBucket
from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.store.format import MAX_POSITION
from untrusted_s3.store.json_fields import InvalidFieldError
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import (
    MAX_ITEMS,
    Claimed,
    Forgotten,
    LossNotes,
    LossReader,
    LossRecord,
    LostSegments,
    forget_losses,
)

KEYS = FolderKeys.of("f")
DAMAGED = KEYS.damaged_segment(3, b"damaged")
NAME = DAMAGED.removeprefix(KEYS.damaged_segments)
GAP = LostSegments(2, 3, 7, 5)
KNOWN = Forgotten(9, 40, 6)
RECORD = LossRecord(4, device(1), 1_700_000_000, 8, (GAP,), (NAME,), KNOWN, Claimed(8, 30, 20), "a" * 32)


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
def notes(bucket: SimulatedBucket) -> LossNotes:
    return LossNotes(bucket, KEYS, device(1))


def put(bucket: SimulatedBucket, record: LossRecord) -> str:
    key = KEYS.loss(record.position, record.loss_id)
    bucket.store.put(key, json.dumps(record.to_json()).encode())
    return key


async def read(bucket: SimulatedBucket) -> LossReader:
    reader = LossReader(bucket, KEYS)
    await reader.read()
    return reader


def test_a_record_that_is_written_is_read() -> None:
    assert LossRecord.from_json(json.loads(json.dumps(RECORD.to_json()))) == RECORD
    least = LossRecord(1, device(2), 0)
    assert LossRecord.from_json(least.to_json()) == least
    required = {name: least.to_json()[name] for name in ("position", "id", "writer", "time", "index_id")}
    assert LossRecord.from_json(required) == least


def test_what_is_lost_in_words() -> None:
    assert list(RECORD.texts(KEYS).values()) == [
        "the log has lost segments 2 to 3 with 5 entries: what was in it and no device has is lost",
        f"a segment of the log was damaged: it is kept as {DAMAGED}",
        f"6 entries that the gateway {device(1)} knew are not in the log any more",
        "a device knew the folder's index up to sequence 30, and the log had it up to 20: what was in it and no device"
        " has is lost",
    ]
    assert str(LostSegments(5, 5, 0, 0)) == "segment 5"
    assert str(LostSegments(5, 4, 3, 0)) == "segments before 5 that the one there continues"


BAD: list[tuple[str, Any]] = [
    ("position", 0),
    ("position", MAX_POSITION + 1),
    ("position", "4"),
    ("id", "A" * 32),
    ("id", "a" * 31),
    ("writer", "nobody"),
    ("time", -1),
    ("time", 10**15),
    ("index_id", "8"),
    ("segments", {}),
    ("segments", [1]),
    ("segments", [{"first": 2, "last": 0, "sequence": 0, "entries": 0}]),
    ("segments", [{"first": 0, "last": 3, "sequence": 0, "entries": 0}]),
    ("segments", [{"first": 2, "last": 3, "sequence": -1, "entries": 0}]),
    ("segments", [{"first": 2, "last": 3, "sequence": 0, "entries": 2**63}]),
    ("segments", [{"first": 2, "last": 3, "sequence": 0}]),
    ("segments", [GAP.to_json()] * (MAX_ITEMS + 1)),
    ("damaged", [NAME] * (MAX_ITEMS + 1)),
    ("damaged", ["../../peers/x"]),
    ("damaged", [NAME + "/x"]),
    ("forgotten", []),
    ("forgotten", {**KNOWN.to_json(), "entries": 0}),
    ("claimed", {"index_id": "8" * 16, "sequence": 1}),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{name} {str(value)[:40]}" for name, value in BAD])
def test_a_field_out_of_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidFieldError, match=field):
        LossRecord.from_json({**RECORD.to_json(), field: value})


def test_parts_have_a_bounded_number_of_items_and_say_all() -> None:
    many = LossRecord(4, device(1), 0, 0, tuple(LostSegments(n, n, 0, 1) for n in range(1, 2 * MAX_ITEMS + 2)))
    many = LossRecord(4, device(1), 0, 0, many.segments, (NAME,), KNOWN)
    parts = list(many.parts())
    assert [part.size for part in parts] == [MAX_ITEMS + 2, MAX_ITEMS, 1]
    assert len({part.loss_id for part in parts}) == 3
    assert {what for part in parts for what in part.texts(KEYS)} == set(many.texts(KEYS))
    assert list(LossRecord(4, device(1), 0).parts()) == []


async def test_records_are_read_once_and_forgotten_when_they_are_gone(bucket: SimulatedBucket) -> None:
    first, second = put(bucket, RECORD), put(bucket, LossRecord(3, device(2), 5, loss_id="b" * 32))
    reader = await read(bucket)
    assert list(reader.found) == [second, first] and reader.found[first] == RECORD
    await reader.read()
    assert bucket.count("get") == 2
    del bucket.store.objects[first]
    await reader.read()
    assert list(reader.found) == [second]


def half(bucket: SimulatedBucket) -> str:
    key = KEYS.loss(7, "c" * 32)
    bucket.store.put(key, json.dumps(RECORD.to_json()).encode()[:50])
    return key


def of_another_key(bucket: SimulatedBucket) -> str:
    key = KEYS.loss(7, RECORD.loss_id)
    bucket.store.put(key, json.dumps(RECORD.to_json()).encode())
    return key


def too_large(bucket: SimulatedBucket) -> str:
    key = KEYS.loss(7, "c" * 32)
    bucket.store.put(key, b" " * (5 << 20))
    return key


def foreign(bucket: SimulatedBucket) -> str:
    key = KEYS.losses + ".DS_Store"
    bucket.store.put(key, b"\0")
    return key


@pytest.mark.parametrize("make", [half, of_another_key, too_large, foreign])
async def test_what_is_damaged_or_foreign_is_named_and_hides_no_other(
    bucket: SimulatedBucket, make: Callable[[SimulatedBucket], str]
) -> None:
    sound, bad = put(bucket, RECORD), make(bucket)
    reader = await read(bucket)
    assert list(reader.found) == [sound]
    assert [problem.path for problem in reader.unreadable] == reader.damaged == [bad]
    await reader.read()
    assert [problem.path for problem in reader.unreadable] == reader.damaged == [bad]


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.REFUSED])
async def test_a_key_that_the_store_does_not_give_is_not_damaged(bucket: SimulatedBucket, fault: Fault) -> None:
    sound, other = put(bucket, RECORD), put(bucket, LossRecord(3, device(2), 5, loss_id="b" * 32))
    bucket.fault = lambda call: fault if call.key == other else None
    reader = await read(bucket)
    assert (list(reader.found), [problem.path for problem in reader.unreadable]) == ([sound], [other])
    assert reader.damaged == []
    bucket.fault = lambda call: None
    await reader.read()
    assert (list(reader.found), reader.unreadable) == ([other, sound], [])


async def test_a_record_of_no_bytes_is_none(bucket: SimulatedBucket) -> None:
    bucket.store.put(KEYS.loss(7, "c" * 32), b"")
    reader = await read(bucket)
    assert (reader.found, reader.unreadable) == ({}, [])


async def test_what_is_read_is_bounded(bucket: SimulatedBucket) -> None:
    segments = tuple(LostSegments(n, n, 0, 1) for n in range(1, MAX_ITEMS + 1))
    for number in range(12):
        put(bucket, LossRecord(number + 1, device(1), 0, 0, segments, loss_id=f"{number:032x}"))
    reader = await read(bucket)
    assert len(reader.found) == 11
    assert "more than 10000 losses" in reader.unreadable[0].reason
    for number in range(1001):
        bucket.store.put(KEYS.losses + str(number), b"")
    await reader.read()
    assert len(reader.found) == 11, "what was read stays"
    assert "more than 1000 keys" in reader.unreadable[0].reason


async def test_a_store_that_cannot_be_listed(bucket: SimulatedBucket) -> None:
    bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await read(bucket)


async def test_what_is_lost_is_written_once(bucket: SimulatedBucket, notes: LossNotes) -> None:
    (first,) = await notes.write(3, 8, segments=[GAP], damaged=[DAMAGED], forgotten=KNOWN)
    assert (first.position, first.writer, first.index_id, first.time) == (4, device(1), 8, int(bucket.now()))
    (again,) = await notes.write(9, 8, segments=[GAP], damaged=[DAMAGED], forgotten=Forgotten(9, 40, 5))
    assert again.size == first.size, "the healing has found it all the same"
    assert len((await read(bucket)).found) == 1
    other = LostSegments(11, 12, 50, 3)
    await notes.write(12, 8, segments=[GAP, other], claimed=Claimed(8, 30, 20))
    await LossNotes(bucket, KEYS, device(2)).write(12, 8, segments=[other], forgotten=KNOWN)
    records = list((await read(bucket)).found.values())
    assert [record.position for record in records] == [4, 13, 13]
    assert sum(record.segments == (other,) for record in records) == 1
    assert sum(record.forgotten is not None for record in records) == 2, "another gateway knew other entries"


async def test_the_renewal_of_a_healing_is_no_loss(bucket: SimulatedBucket, notes: LossNotes) -> None:
    await notes.write(5, 8, segments=[GAP])
    seam, other = LostSegments(6, 5, 20, 0), LostSegments(9, 8, 30, 0)
    (found,) = await notes.write(6, 8, segments=[GAP, seam])
    assert found.segments == (GAP,)
    assert len((await read(bucket)).found) == 1
    (found,) = await notes.write(9, 8, segments=[other])
    assert found.segments == (other,)
    assert await notes.write(9, 8, segments=[seam]) == ()


async def test_where_nothing_is_lost_the_store_is_not_asked(bucket: SimulatedBucket, notes: LossNotes) -> None:
    assert await notes.write(3, 8) == ()
    assert bucket.calls == []


async def test_a_damaged_record_is_logged_when_another_is_written(bucket: SimulatedBucket, notes: LossNotes) -> None:
    bad = half(bucket)
    with structlog.testing.capture_logs() as lines:
        await notes.write(3, 8, segments=[GAP])
    assert [line["key"] for line in lines] == [bad]
    assert len((await read(bucket)).found) == 1


async def test_the_last_position_has_a_record_too(bucket: SimulatedBucket, notes: LossNotes) -> None:
    await notes.write(MAX_POSITION, 8, segments=[GAP])
    assert len((await read(bucket)).found) == 1


async def test_foreign_objects_are_not_deleted(bucket: SimulatedBucket) -> None:
    sound, damaged, strange = put(bucket, RECORD), half(bucket), foreign(bucket)
    reader = await read(bucket)
    assert await forget_losses(bucket, KEYS, [*reader.found, *reader.damaged]) == 2
    assert {sound, damaged} & bucket.store.objects.keys() == set()
    assert bucket.store.keys() == [strange]
