from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import file
from tests.objects.writing import GRID, KEYS, PART, Writing, check_stored, object_body, object_key
from tests.simulated import Call, Fault, Phase, Scheduler, SimulatedBucket, fail_on
from tests.virtual_time import run_in_virtual_time, virtual_time
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import BlockUnavailable, DataError, StoreRefused, StoreUnreachable
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.format import MAX_OBJECT_KEYS
from untrusted_s3.store.layout import name_key

SMALL = file("small", sizes=(1064, 1500, 1064))
# Parts of two blocks, as the first one is: blocks that end right at the end of a part, and others that do not.
LARGE = file("large", sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
LARGE_PART = 6000
EVEN = file("even", sizes=(4096, 4096, 4096))


@pytest.mark.parametrize(("file_info", "part_size"), [(SMALL, 0), (LARGE, LARGE_PART), (EVEN, PART)])
async def test_the_object_is_the_blocks_and_the_trailer(file_info: FileInfo, part_size: int) -> None:
    writing = Writing()
    check_stored(writing.bucket.store, file_info, await writing(file_info), part_size)
    assert writing.fetched == Counter(range(len(file_info.message.blocks)))
    assert not writing.bucket.store.uploads
    assert (writing.bucket.count("put"), writing.bucket.count("create_multipart_upload")) == (
        (0, 1) if part_size else (1, 0)
    )
    writing.check_all_is_released()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1064, 13_000), min_size=1, max_size=12),
    st.integers(1, 30_000),
    st.lists(st.integers(0, 511), max_size=100),
)
def test_any_blocks_in_any_order(sizes: list[int], memory: int, schedule: list[int]) -> None:
    file_info = file("any", sizes=sizes)
    part = -(-PART // sizes[0]) * sizes[0] if file_info.message.size > GRID.single_put_size else 0

    async def play() -> None:
        scheduler = Scheduler(schedule)
        writing = Writing(SimulatedBucket(gate=scheduler.gate()), memory)
        block_gate = scheduler.gate(1)
        writing.before_block = lambda: block_gate(Call("block", ""), Phase.REQUEST)

        async def work() -> None:
            check_stored(writing.bucket.store, file_info, await writing(file_info), part)

        await scheduler.run(work())
        assert writing.fetched == Counter(range(len(sizes)))
        assert writing.memory.most_used <= max(memory, part or len(object_body(file_info)))
        writing.check_all_is_released()

    run_in_virtual_time(play())


@pytest.mark.parametrize("file_info", [SMALL, LARGE], ids=["small", "large"])
async def test_any_block_may_be_missing(file_info: FileInfo) -> None:
    for number in range(len(file_info.message.blocks)):
        writing = Writing()
        writing.missing = {number}
        with pytest.raises(BlockUnavailable, match=f"block {number}"):
            await writing(file_info)
        assert not writing.bucket.store.objects
        writing.check_all_is_released()
        writing.missing.clear()
        await writing(file_info)
        assert writing.bucket.store.body(object_key(file_info)) == object_body(file_info)


async def test_all_blocks_may_be_missing() -> None:
    writing = Writing()
    writing.missing = set(range(6))
    with pytest.raises(BlockUnavailable):
        await writing(LARGE)
    writing.check_all_is_released()


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.EMPTIED])
@pytest.mark.parametrize("file_info", [SMALL, LARGE], ids=["small", "large"])
async def test_any_request_may_fail(file_info: FileInfo, fault: Fault) -> None:
    number = 0
    while True:
        number += 1
        bucket = SimulatedBucket(fault=fail_on({number: fault}))
        writing = Writing(bucket)
        failed = False
        try:
            await writing(file_info)
        except StoreUnreachable:
            failed = True
        writing.check_all_is_released()
        if not failed:
            break
        stored = await writing(file_info)
        if fault is not Fault.EMPTIED:  # else it may have another key
            check_stored(bucket.store, file_info, stored, LARGE_PART if file_info is LARGE else 0)
        else:
            assert bucket.store.body(object_key(file_info)[: -len(content_hash(file_info))] + stored.object_name) == (
                object_body(file_info)
            )
        writing.check_all_is_released()
    assert number > (1 if file_info is SMALL else 8)


@settings(deadline=None, max_examples=100)
@given(
    st.booleans(),
    st.integers(1, 60),
    st.lists(st.integers(0, 511), max_size=60),
    st.sampled_from([LARGE_PART, 3 * LARGE_PART]),
)
def test_cancelled_at_any_point(large: bool, when: int, schedule: list[int], memory: int) -> None:
    file_info = LARGE if large else SMALL

    async def play() -> None:
        scheduler = Scheduler(schedule)
        steps = 0
        writing = Writing(memory=memory)
        task: asyncio.Task[StoredObject] | None = None

        async def gate(call: Call, phase: Phase) -> None:
            nonlocal steps
            steps += 1
            if steps == when and task is not None:
                task.cancel()
            await scheduler.gate()(call, phase)

        writing.bucket.gate = gate
        writing.before_block = lambda: gate(Call("block", ""), Phase.REQUEST)

        async def work() -> None:
            nonlocal task
            task = asyncio.ensure_future(writing(file_info))
            await asyncio.wait([task])

        await scheduler.run(work())
        assert task is not None
        if task.cancelled():
            writing.bucket.gate = scheduler.gate()
            writing.before_block = lambda: asyncio.sleep(0)
            await scheduler.run(work())
            check_stored(writing.bucket.store, file_info, task.result(), LARGE_PART if large else 0)
            assert not writing.bucket.store.uploads
        else:
            check_stored(writing.bucket.store, file_info, task.result(), LARGE_PART if large else 0)
        writing.check_all_is_released()

    run_in_virtual_time(play())


async def test_a_large_object_that_is_there_is_adopted_without_a_fetch() -> None:
    """It may hold other ciphertext of the same content, and an older file info."""
    writing = Writing()
    older = file("large", 1, sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
    newer = file("large", 2, sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
    body = object_body(older, "another peer")
    writing.bucket.store.put(object_key(older), body)
    stored = await writing(newer)
    assert not writing.fetched
    assert writing.bucket.store.body(object_key(newer)) == body
    checksums = tuple(crc32c.crc32c(body[start : start + LARGE_PART]) for start in range(0, len(body), LARGE_PART))
    assert stored == StoredObject(content_hash(newer), len(body), LARGE_PART, checksums)
    writing.check_all_is_released()


async def test_a_large_object_is_not_read_where_the_log_has_said_what_it_is() -> None:
    """As when a file of 200 GiB goes back to a content that it had."""
    writing = Writing()
    info = file("large", 2, sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
    body = object_body(info)
    writing.bucket.store.put(object_key(info), body)
    said = StoredObject(content_hash(info), len(body), LARGE_PART, (1,) * -(-len(body) // LARGE_PART))
    asked: list[tuple[bytes, str, int]] = []

    async def earlier(key: bytes, object_name: str, most: int) -> StoredObject | None:
        asked.append((key, object_name, most))
        return said

    writing.writer = ObjectWriter(
        writing.bucket, KEYS, writing.memory, writing.uploads, writing.counters, ObjectSettings(), GRID, earlier=earlier
    )
    stored = await writing(info)
    assert (stored.object_name, stored.size, stored.part_crc32c) == (said.object_name, said.size, said.part_crc32c)
    assert not [call for call in writing.bucket.calls if call.operation == "get"]
    assert [(key, name) for key, name, _ in asked] == [(name_key(info.name), content_hash(info))]
    assert asked[0][2] < len(body) / 2, "the log is read as far as that costs less"
    said = replace(said, size=len(body) + 1)
    stored = await writing(info)
    assert stored.part_crc32c[0] == crc32c.crc32c(body[:LARGE_PART]), "it is another object now"


async def test_a_small_object_that_is_there_is_adopted() -> None:
    writing = Writing()
    body = object_body(SMALL, "another peer")
    writing.bucket.store.put(object_key(SMALL), body)
    assert (await writing(SMALL)).part_crc32c == (crc32c.crc32c(body),)
    assert writing.bucket.store.body(object_key(SMALL)) == body
    writing.check_all_is_released()


async def test_another_gateway_completes_first() -> None:
    body = object_body(LARGE, "another peer")

    async def gate(call: Call, phase: Phase) -> None:
        if call.operation == "complete_multipart_upload" and phase is Phase.REQUEST:
            bucket.store.put(call.key, body)

    bucket = SimulatedBucket()
    bucket.gate = gate
    writing = Writing(bucket)
    stored = await writing(LARGE)
    assert bucket.store.body(object_key(LARGE)) == body
    assert not bucket.store.uploads
    assert stored.part_crc32c[0] == crc32c.crc32c(body[:LARGE_PART])
    writing.check_all_is_released()


def _trailer_size(body: bytes) -> int:
    return int.from_bytes(body[-4:], "big") + 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: body[:-4] + b"\xff\xff\xff\xff",
        lambda body: body[:-40],
        lambda body: b"",
        lambda body: body[: -_trailer_size(body)] + encode_trailer(file("other", sizes=(1064,))),
        lambda body: body[: -_trailer_size(body)] + encode_trailer(file("large", sizes=(4096,), content=7)),
        lambda body: body[: -_trailer_size(body)] + b"\xff" * 50 + (50).to_bytes(4, "big"),
    ],
)
@pytest.mark.parametrize("file_info", [SMALL, LARGE], ids=["small", "large"])
async def test_something_else_under_the_key_is_not_adopted(
    file_info: FileInfo, damage: Callable[[bytes], bytes]
) -> None:
    """It is left unchanged, and the content gets another key."""
    writing = Writing()
    store, key = writing.bucket.store, object_key(file_info)
    damaged = damage(object_body(file_info))
    store.put(key, damaged)
    stored = await writing(file_info)
    assert stored.object_name == f"{content_hash(file_info)}-1"
    assert (store.body(key), store.body(f"{key}-1")) == (damaged, object_body(file_info))
    # As a gateway does that lost its state before it named the object in the log.
    assert await writing(file_info) == stored
    writing.check_all_is_released()


async def test_damage_under_every_key_is_reported() -> None:
    writing = Writing()
    for number in range(MAX_OBJECT_KEYS):
        writing.bucket.store.put(object_key(SMALL) + (f"-{number}" if number else ""), b"")
    with pytest.raises(DataError, match=object_key(SMALL)):
        await writing(SMALL)
    writing.check_all_is_released()


async def test_any_number_of_losses_leaves_a_name() -> None:
    writing = Writing()
    first = content_hash(SMALL)
    condemned = {first, *(f"{first}-{number}" for number in range(1, 50))}
    assert (await writing(SMALL, condemned=condemned)).object_name == f"{first}-50"


async def test_a_refusal_is_reported() -> None:
    bucket = SimulatedBucket(clock=lambda: 0.0)
    writing = Writing(bucket)
    for file_info in (SMALL, LARGE):
        with pytest.raises(StoreRefused):
            await writing(file_info)
        writing.check_all_is_released()


async def test_files_written_at_once_share_the_memory() -> None:
    writing = Writing(memory=2 * PART)
    files = [file(number, sizes=(3000, 3000, 5000)) for number in range(5)] + [
        file(f"small {number}", sizes=(2000,)) for number in range(5)
    ]
    await asyncio.gather(*map(writing, files))
    for file_info in files:
        assert writing.bucket.store.body(object_key(file_info)) == object_body(file_info)
    assert writing.memory.most_used <= 2 * PART
    writing.check_all_is_released()


@virtual_time
async def test_a_device_that_is_too_slow_gives_back_what_others_wait_for() -> None:
    """Others get memory within the patience, and what is within the device's part of the memory goes on."""
    writing = Writing(memory=3 * PART, settings=ObjectSettings(patience=30.0))
    never = asyncio.Event()
    writing.before_block = never.wait
    slow = [asyncio.ensure_future(writing(file(one, sizes=(3000,)))) for one in range(2)]
    await asyncio.sleep(3600)
    assert not any(task.done() for task in slow), "nobody else waits"
    writing.owner = "other"
    writing.before_block = lambda: asyncio.sleep(0)
    infos = [file(f"other {one}", sizes=(3500,)) for one in range(6)]
    others = [asyncio.ensure_future(writing(info)) for info in infos]
    async with asyncio.timeout(60):
        await asyncio.gather(*others)
    ended = [task.exception() for task in slow if task.done()]
    assert len(ended) <= 1 and all(isinstance(error, BlockUnavailable) for error in ended)
    never.set()
    await asyncio.gather(*slow, return_exceptions=True)
    writing.check_all_is_released()
