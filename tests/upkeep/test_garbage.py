"""Garbage of one folder, on a simulated store: what is found, what is deleted when, and what stays."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import device, entry, file
from tests.simulated import Call, Phase, SimulatedBucket
from tests.upkeep.stored import HISTORY, KEYS, SETTINGS, Stored
from untrusted_s3.errors import DataError, ObjectIsGarbage, SegmentsMissing
from untrusted_s3.index.entry import PeerCursor
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.trimming import TrimPlan, plan_trim
from untrusted_s3.store.garbage import GARBAGE_RULES, GarbageRecord, list_garbage, write_garbage
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import GarbageCollector


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    stored = Stored(tmp_path)
    yield stored
    stored.state.close()


async def test_what_the_history_does_not_need_is_deleted_a_day_after_it_was_found(stored: Stored) -> None:
    old, kept = await stored.write(("a", 1), ("b", 1))
    new, *_ = await stored.write(("a", 2))
    await stored.log.checkpoint()
    stored.pass_days(29)
    assert (await stored.turn()).found.objects == 0
    stored.pass_days(1.1)
    found = await stored.turn()
    assert (found.found.objects, found.deleted.objects) == (1, 0)
    assert stored.objects == {old, new, kept}
    stored.pass_days(0.95)
    assert (await stored.turn()).deleted.objects == 0
    stored.pass_days(0.1)
    done = await stored.turn()
    assert (done.deleted.objects, done.deleted.bytes) == (1, found.found.bytes)
    assert stored.objects == {new, kept}


async def test_dissents_the_log_and_all_checkpoints_keep_their_objects(stored: Stored) -> None:
    await stored.write(("a", 1))
    await stored.log.checkpoint()
    await stored.write(("a", 2))
    await stored.log.checkpoint()
    await stored.write(("a", 3))
    for _ in range(40):
        stored.pass_days(0.5)
        await stored.turn()
    assert len(stored.objects) == 3


async def test_what_was_never_in_the_log_is_garbage_after_a_day(stored: Stored) -> None:
    await stored.write(("a", 1))
    left = stored.put(entry(file("b", 1)))
    stored.pass_days(0.95)
    assert (await stored.turn()).found.objects == 0, "its entry may be on its way"
    stored.pass_days(1)
    assert (await stored.turn()).found.objects == 1
    stored.pass_days(1)
    assert (await stored.turn()).deleted.objects == 1
    assert left not in stored.objects


async def test_a_candidate_that_the_log_names_again_stays(stored: Stored) -> None:
    key = stored.put(one := entry(file("a", 1)))
    stored.pass_days(1.1)
    assert (await stored.turn()).found.objects == 1
    await FolderLog(SimulatedBucket(stored.store), KEYS, stored.state, device(2)).append(
        [], [PeerCursor(device(3), 1, 1)]
    )
    stored.log.garbage.candidates.has = lambda name_hash, object_name: False  # type: ignore[method-assign]
    await stored.log.append([one])  # as by a writer that has looked before
    stored.pass_days(1.1)
    done = await stored.turn()
    assert (done.deleted.objects, done.named) == (0, 1)
    assert stored.objects == {key}


async def test_a_writer_hears_of_candidates(stored: Stored) -> None:
    stored.put(one := entry(file("a", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    for _ in range(2):
        with pytest.raises(ObjectIsGarbage):
            await stored.log.append([one])
    assert stored.state.totals.files == 0


async def test_a_look_changes_nothing_and_says_what_a_turn_does(stored: Stored) -> None:
    await stored.write(("a", 1))
    await stored.write(("a", 2))
    await stored.log.checkpoint()
    stored.put(entry(file("b", 1)))
    stored.pass_days(31)

    async def leaving(ages: dict[int, float]) -> TrimPlan:
        return await plan_trim(stored.bucket, KEYS, ages, HISTORY)

    before = dict(stored.store.objects)
    look = await stored.collector().look(leaving)
    assert look.found.objects == 2
    assert stored.store.objects == before
    assert (await stored.turn()).found == look.found
    before = dict(stored.store.objects)
    look = await stored.collector().look(leaving)
    assert (look.found.objects, look.waiting.objects) == (0, 2)
    assert look.next_in is not None and 0 < look.next_in <= DAY
    stored.pass_days(1)
    assert (await stored.collector().look(leaving)).due.objects == 2
    assert stored.store.objects == before
    assert (await stored.turn()).deleted.objects == 2


async def test_others_need_not_do_again_what_one_has_done(stored: Stored) -> None:
    for number in range(3):
        stored.put(entry(file(str(number), 1)))
    stored.pass_days(1.1)
    assert (await stored.turn()).looked
    for _ in range(3):
        before = len(stored.bucket.calls)
        assert not (await stored.turn()).looked
        assert stored.bucket.calls[before:].count(stored.bucket.calls[-1]) == 1
    stored.pass_days(1.0)
    assert (await stored.turn()).deleted.objects == 3
    deletions = stored.bucket.count("delete")
    assert (await stored.turn()).deleted.objects == 0
    assert stored.bucket.count("delete") == deletions


async def test_records_go_when_nobody_needs_them(stored: Stored) -> None:
    stored.put(entry(file("a", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    (first,) = await list_garbage(stored.bucket, KEYS)
    stored.pass_days(1.1)
    await stored.turn()
    assert len(await list_garbage(stored.bucket, KEYS)) == 1
    assert KEYS.garbage_swept(first.record_id) in stored.store.objects
    stored.clock.now += GARBAGE_RULES.sweep + GARBAGE_RULES.margin
    await stored.turn()
    assert first.record_id not in [one.record_id for one in await list_garbage(stored.bucket, KEYS)]
    assert KEYS.garbage_swept(first.record_id) not in stored.store.objects


async def test_a_record_whose_time_is_over_has_its_objects_found_again(stored: Stored) -> None:
    stored.put(entry(file("a", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    stored.pass_days(2.2)
    assert (await stored.turn()).deleted.objects == 0
    stored.pass_days(1)
    assert (await stored.turn()).found.objects == 1
    stored.pass_days(1.1)
    assert (await stored.turn()).deleted.objects == 1


async def test_nothing_is_deleted_where_the_log_is_damaged(stored: Stored) -> None:
    await stored.write(("a", 1))
    await stored.write(("a", 2))
    await stored.write(("a", 3))
    stored.put(entry(file("b", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    stored.pass_days(1.1)
    whole = stored.store.body(KEYS.segment(2))
    stored.store.put(KEYS.segment(2), whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError):
        await stored.turn()
    del stored.store.objects[KEYS.segment(2)]
    with pytest.raises(SegmentsMissing):
        await stored.turn()
    assert len(stored.objects) == 4
    stored.store.put(KEYS.segment(2), whole)
    assert (await stored.turn()).deleted.objects == 1


async def test_what_is_not_ours_stays_and_is_counted(stored: Stored) -> None:
    foreign = [KEYS.objects + "notes.txt", KEYS.objects + "aa/bb/cc"]
    for key in foreign:
        stored.store.put(key, b"x")
    stored.store.put(KEYS.garbage + "notes.json", b"{}")
    for _ in range(5):
        stored.pass_days(1.1)
        await stored.turn()
    assert (await stored.collector().collect(always=True)).unknown == 2
    assert set(foreign) <= stored.objects


async def test_a_damaged_record_stops_nothing(stored: Stored) -> None:
    stored.put(one := entry(file("a", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    (record,) = await list_garbage(stored.bucket, KEYS)
    stored.store.put(KEYS.garbage_record(record.record_id), b"{")
    await stored.log.append([one])
    stored.pass_days(1.1)
    assert (await stored.turn()).deleted.objects == 0
    stored.pass_days(3)
    await stored.turn()
    assert record.record_id not in [one.record_id for one in await list_garbage(stored.bucket, KEYS)]


async def test_nothing_is_read_while_nothing_changes(stored: Stored) -> None:
    """Idle days cost a few listings each, and a look once a week finds what interrupted transfers have left."""
    await stored.write(*((str(number), 1) for number in range(10)))
    await stored.log.checkpoint()
    for _ in range(80):  # 40 days, until the log does not change any more
        stored.pass_days(0.5)
        await stored.turn()
    looks = 0
    before = len(stored.bucket.calls)
    for _ in range(28):
        stored.pass_days(0.5)
        looks += (await stored.collector().collect()).looked
    assert looks == 2
    spent = Counter(call.operation for call in stored.bucket.calls[before:])
    # Of each turn the records of garbage; once a day the record of the last look and the log's parts; with a look those
    # again, and the objects.
    assert spent == {"list": 28 + 14 * 3 + 2 * (5 + 2), "get": 14, "put": 14, "download_file": 2}
    left = stored.put(entry(file("left", 1)))
    for _ in range(22):
        stored.pass_days(0.5)
        await stored.turn()
    assert left not in stored.objects


@pytest.mark.parametrize("change", ["segment", "checkpoint", "kept"])
async def test_whatever_changes_in_the_log_is_looked_at_within_a_day(stored: Stored, change: str) -> None:
    await stored.write(("a", 1))
    await stored.log.checkpoint()
    stored.pass_days(1.1)
    assert (await stored.turn()).looked
    stored.pass_days(1.1)
    assert not (await stored.turn()).looked
    if change == "segment":
        await stored.write(("a", 2))
    elif change == "checkpoint":
        del stored.store.objects[KEYS.checkpoint(1)]
    else:
        stored.store.put(KEYS.kept_checkpoint(1, 1), stored.store.body(KEYS.checkpoint(1)))
    assert not (await stored.turn()).looked
    stored.pass_days(1.1)
    assert (await stored.turn()).looked


async def test_a_look_that_had_to_leave_something_is_repeated(stored: Stored) -> None:
    await stored.write(("a", 1))
    stored.put(entry(file("b", 1)))
    stored.put(entry(file("c", 1)))
    settings = replace(SETTINGS, most_candidates=1)
    found = []
    for _ in range(5):
        stored.pass_days(1.05)
        collector = GarbageCollector(stored.bucket, KEYS, clock=stored.clock, settings=settings)
        found.append((await collector.collect()).found.objects)
    assert sum(found) == 2


async def test_a_long_log_is_read_less_often(stored: Stored) -> None:
    settings = replace(SETTINGS, segments_a_look=2)
    looked: list[int] = []
    for number in range(16):
        await stored.write(("a", number))
        stored.pass_days(1.0)
        collector = GarbageCollector(stored.bucket, KEYS, clock=stored.clock, settings=settings)
        if (await collector.collect()).looked:
            looked.append(number)
    assert looked == [0, 1, 3, 7, 14]


async def test_a_damaged_record_of_the_last_look_lets_somebody_look(stored: Stored) -> None:
    await stored.write(("a", 1))
    stored.store.put(KEYS.garbage_look, b"{")
    stored.pass_days(1.1)
    assert (await stored.turn()).looked
    stored.pass_days(1.1)
    assert not (await stored.turn()).looked


async def test_records_without_candidates_cost_no_look(stored: Stored) -> None:
    """Programs of November 2026 wrote such a record with each look that found nothing."""
    await stored.write(("a", 1))
    stored.pass_days(1.1)
    await stored.turn()
    await write_garbage(stored.bucket, KEYS, GarbageRecord.new(stored.bucket.now(), []))
    stored.pass_days(1.1)
    before = len(stored.bucket.calls)
    assert not (await stored.turn()).looked
    assert not [call for call in stored.bucket.calls[before:] if call.key == KEYS.segment(1)]


@pytest.mark.parametrize("read", [1, 2, 3])
async def test_a_sweep_that_stood_still_deletes_nothing(stored: Stored, read: int) -> None:
    """Meanwhile the record may be gone, and its object written once more and named."""
    key = stored.put(entry(file("a", 1)))
    stored.pass_days(1.1)
    await stored.turn()
    stored.pass_days(1.1)
    reads = itertools.count(1)

    async def gate(call: Call, phase: Phase) -> None:
        if phase is Phase.ANSWER and call.operation == "get" and call.key.startswith(KEYS.garbage):
            stored.pass_days(1.5 if next(reads) == read else 0)

    bucket = SimulatedBucket(stored.store, clock=stored.clock, gate=gate)
    done = await GarbageCollector(bucket, KEYS, clock=stored.clock, settings=SETTINGS).collect()
    assert next(reads) > read
    assert (done.deleted.objects, stored.objects) == (0, {key})
