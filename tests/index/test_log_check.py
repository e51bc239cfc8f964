"""Damage in a folder's log is found and named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.file_infos import device, directory, entry
from tests.simulated import Call, Fault, SimulatedBucket
from tests.vault.stored_folder import flip, stored_folder
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.log_check import check_log
from untrusted_s3.index.segment import decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import FolderKeys

KEYS = FolderKeys.of("folder")


@pytest.fixture
async def bucket(tmp_path: Path) -> SimulatedBucket:
    """Six segments, and checkpoints after the second and the fourth; the first segment is cleaned up."""
    bucket = SimulatedBucket()
    folder = await stored_folder(bucket, tmp_path)
    for number in range(1, 7):
        await folder.append(folder.directory(f"directory {number}"))
        if number in (2, 4):
            await folder.log.checkpoint()
    await bucket.delete(KEYS.segment(1))
    return bucket


async def found(bucket: SimulatedBucket) -> dict[str, str]:
    reader = SimulatedBucket(bucket.store)
    problems = {problem.path: problem.reason async for problem in check_log(reader, KEYS)}
    assert {call.operation for call in reader.calls} <= {"get", "list", "download_file"}
    return problems


async def test_a_sound_log_has_no_problem(bucket: SimulatedBucket) -> None:
    assert await found(bucket) == {}


async def test_an_empty_log_has_no_problem(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    await stored_folder(bucket, tmp_path)
    assert await found(bucket) == {}


@pytest.mark.parametrize("offset", [0, 12, -1])
async def test_a_bit_in_a_segment_is_found(bucket: SimulatedBucket, offset: int) -> None:
    for position in (2, 5):  # no state needs the first one
        flip(bucket, KEYS.segment(position), offset)
    problems = await found(bucket)
    assert problems.keys() == {KEYS.segment(2), KEYS.segment(5)}


@pytest.mark.parametrize("offset", [0, 5000, -1])
async def test_a_bit_in_a_checkpoint_is_found(bucket: SimulatedBucket, offset: int) -> None:
    flip(bucket, KEYS.checkpoint(2), offset)
    ((key, reason),) = (await found(bucket)).items()
    assert key == KEYS.checkpoint(2)
    assert "its checksum does not match" in reason


@pytest.mark.parametrize("position", [3, 4, 5])
async def test_a_missing_segment_is_found(bucket: SimulatedBucket, position: int) -> None:
    del bucket.store.objects[KEYS.segment(position)]
    covered = "; a checkpoint says what came of it" if position <= 4 else ""
    assert await found(bucket) == {KEYS.segment(position): f"the log segment is missing{covered}"}


async def test_segments_that_a_checkpoint_stands_for_may_be_gone(bucket: SimulatedBucket) -> None:
    del bucket.store.objects[KEYS.segment(2)]
    assert await found(bucket) == {}


async def test_without_the_checkpoint_they_may_not(bucket: SimulatedBucket) -> None:
    for position in (2, 4):
        del bucket.store.objects[KEYS.checkpoint(position)]
    assert await found(bucket) == {KEYS.segment(1): "the log segment is missing"}


async def test_a_segment_whose_numbers_do_not_follow_is_found(bucket: SimulatedBucket) -> None:
    key = KEYS.segment(5)
    segment = decode_segment(bucket.store.body(key), key)
    bucket.store.put(key, encode_segment(dataclasses.replace(segment, first_sequence=7)))
    problems = await found(bucket)
    assert problems == {
        key: "it begins at sequence 7, where 5 is due",
        KEYS.segment(6): "it begins at sequence 6, where 8 is due",
    }


async def test_a_segment_of_no_bytes_says_nothing(bucket: SimulatedBucket, tmp_path: Path) -> None:
    bucket.store.put(KEYS.segment(7), b"")
    log = FolderLog(bucket, KEYS, FolderState(tmp_path / "another gateway.sqlite"), device(2))
    await log.load()
    await log.append([entry(directory("another"))])
    assert log.state.position == 8
    assert await found(bucket) == {}


async def test_a_segment_that_has_lost_its_bytes_is_found(bucket: SimulatedBucket) -> None:
    bucket.store.put(KEYS.segment(4), b"")
    assert (await found(bucket)).keys() == {KEYS.segment(5)}


async def test_what_is_cleaned_up_while_it_is_read_is_no_damage(bucket: SimulatedBucket) -> None:
    def clean_up(call: Call) -> Fault | None:
        if call.operation == "download_file" and call.key == KEYS.checkpoint(2):
            for key in (KEYS.checkpoint(2), KEYS.segment(2)):
                bucket.store.objects.pop(key, None)
        return None

    reader = SimulatedBucket(bucket.store, fault=clean_up)
    assert [problem async for problem in check_log(reader, KEYS)] == []
