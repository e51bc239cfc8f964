from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import file
from tests.objects.pulls import PART, Pull, check_stored, object_body, object_key
from tests.simulated import Call, Fault, Phase, Scheduler, SimulatedBucket, fail_on
from untrusted_s3 import limits
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import BlockUnavailable, DataError, StoreRefused, StoreUnreachable
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer

SMALL = file("small", sizes=(1064, 1500, 1064))
# Parts of two blocks, as the first one is: blocks that end right at the end of a part, and others that do not.
LARGE = file("large", sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
LARGE_PART = 6000
EVEN = file("even", sizes=(4096, 4096, 4096))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SINGLE_PUT_SIZE", 4000)
    monkeypatch.setattr(limits, "MIN_PART_SIZE", PART)


@pytest.mark.parametrize(("file_info", "part_size"), [(SMALL, 0), (LARGE, LARGE_PART), (EVEN, PART)])
async def test_the_object_is_the_blocks_and_the_trailer(file_info: FileInfo, part_size: int) -> None:
    pull = Pull()
    check_stored(pull.bucket.store, file_info, await pull(file_info), part_size)
    assert pull.fetched == Counter(range(len(file_info.message.blocks)))
    assert not pull.bucket.store.uploads
    assert (pull.bucket.count("put"), pull.bucket.count("create_multipart_upload")) == ((0, 1) if part_size else (1, 0))
    await pull.check_all_is_given_back()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1064, 13_000), min_size=1, max_size=12),
    st.integers(1, 30_000),
    st.lists(st.integers(0, 511), max_size=100),
)
def test_any_blocks_in_any_order(sizes: list[int], budget: int, schedule: list[int]) -> None:
    file_info = file("any", sizes=sizes)
    part = -(-PART // sizes[0]) * sizes[0] if file_info.message.size > limits.SINGLE_PUT_SIZE else 0

    async def play() -> None:
        scheduler = Scheduler(schedule)
        pull = Pull(SimulatedBucket(gate=scheduler.gate()), budget)
        block_gate = scheduler.gate(1)
        pull.before_block = lambda: block_gate(Call("block", ""), Phase.REQUEST)

        async def work() -> None:
            check_stored(pull.bucket.store, file_info, await pull(file_info), part)

        await scheduler.run(work())
        assert pull.fetched == Counter(range(len(sizes)))
        assert pull.most_used <= max(budget, part or len(object_body(file_info)))
        await pull.check_all_is_given_back()

    asyncio.run(play())


@pytest.mark.parametrize("file_info", [SMALL, LARGE], ids=["small", "large"])
async def test_any_block_may_be_missing(file_info: FileInfo) -> None:
    for number in range(len(file_info.message.blocks)):
        pull = Pull()
        pull.missing = {number}
        with pytest.raises(BlockUnavailable, match=f"block {number}"):
            await pull(file_info)
        assert not pull.bucket.store.objects
        await pull.check_all_is_given_back()
        pull.missing.clear()
        await pull(file_info)
        assert pull.bucket.store.body(object_key(file_info)) == object_body(file_info)


async def test_all_blocks_may_be_missing() -> None:
    pull = Pull()
    pull.missing = set(range(6))
    with pytest.raises(BlockUnavailable):
        await pull(LARGE)
    await pull.check_all_is_given_back()


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.EMPTIED])
@pytest.mark.parametrize("file_info", [SMALL, LARGE], ids=["small", "large"])
async def test_any_request_may_fail(file_info: FileInfo, fault: Fault) -> None:
    number = 0
    while True:
        number += 1
        bucket = SimulatedBucket(fault=fail_on({number: fault}))
        pull = Pull(bucket)
        failed = False
        try:
            await pull(file_info)
        except StoreUnreachable:
            failed = True
        await pull.check_all_is_given_back()
        if not failed:
            break
        stored = await pull(file_info)
        if fault is not Fault.EMPTIED:  # else it may have another key
            check_stored(bucket.store, file_info, stored, LARGE_PART if file_info is LARGE else 0)
        else:
            assert bucket.store.body(object_key(file_info)[: -len(content_hash(file_info))] + stored.content_hash) == (
                object_body(file_info)
            )
        await pull.check_all_is_given_back()
    assert number > (1 if file_info is SMALL else 8)


@settings(deadline=None, max_examples=100)
@given(
    st.booleans(),
    st.integers(1, 60),
    st.lists(st.integers(0, 511), max_size=60),
    st.sampled_from([LARGE_PART, 3 * LARGE_PART]),
)
def test_cancelled_at_any_point(large: bool, when: int, schedule: list[int], budget: int) -> None:
    file_info = LARGE if large else SMALL

    async def play() -> None:
        scheduler = Scheduler(schedule)
        steps = 0
        pull = Pull(budget=budget)
        task: asyncio.Task[StoredObject] | None = None

        async def gate(call: Call, phase: Phase) -> None:
            nonlocal steps
            steps += 1
            if steps == when and task is not None:
                task.cancel()
            await scheduler.gate()(call, phase)

        pull.bucket.gate = gate
        pull.before_block = lambda: gate(Call("block", ""), Phase.REQUEST)

        async def work() -> None:
            nonlocal task
            task = asyncio.ensure_future(pull(file_info))
            await asyncio.wait([task])

        await scheduler.run(work())
        assert task is not None
        if task.cancelled():
            pull.bucket.gate = scheduler.gate()
            pull.before_block = lambda: asyncio.sleep(0)
            await scheduler.run(work())
            check_stored(pull.bucket.store, file_info, task.result(), LARGE_PART if large else 0)
            assert not pull.bucket.store.uploads
        else:
            check_stored(pull.bucket.store, file_info, task.result(), LARGE_PART if large else 0)
        await pull.check_all_is_given_back()

    asyncio.run(play())


async def test_a_large_object_that_is_there_is_adopted_without_a_fetch() -> None:
    """It may hold other ciphertext of the same content, and an older file info."""
    pull = Pull()
    older = file("large", 1, sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
    newer = file("large", 2, sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
    body = object_body(older, "another peer")
    pull.bucket.store.put(object_key(older), body)
    stored = await pull(newer)
    assert not pull.fetched
    assert pull.bucket.store.body(object_key(newer)) == body
    checksums = tuple(crc32c.crc32c(body[start : start + LARGE_PART]) for start in range(0, len(body), LARGE_PART))
    assert stored == StoredObject(content_hash(newer), len(body), LARGE_PART, checksums)
    await pull.check_all_is_given_back()


async def test_a_small_object_that_is_there_is_adopted() -> None:
    pull = Pull()
    body = object_body(SMALL, "another peer")
    pull.bucket.store.put(object_key(SMALL), body)
    assert (await pull(SMALL)).part_crc32c == (crc32c.crc32c(body),)
    assert pull.bucket.store.body(object_key(SMALL)) == body
    await pull.check_all_is_given_back()


async def test_another_gateway_completes_first() -> None:
    body = object_body(LARGE, "another peer")

    async def gate(call: Call, phase: Phase) -> None:
        if call.operation == "complete_multipart_upload" and phase is Phase.REQUEST:
            bucket.store.put(call.key, body)

    bucket = SimulatedBucket()
    bucket.gate = gate
    pull = Pull(bucket)
    stored = await pull(LARGE)
    assert bucket.store.body(object_key(LARGE)) == body
    assert not bucket.store.uploads
    assert stored.part_crc32c[0] == crc32c.crc32c(body[:LARGE_PART])
    await pull.check_all_is_given_back()


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
    """It stays as it is, and the content gets another key."""
    pull = Pull()
    store, key = pull.bucket.store, object_key(file_info)
    damaged = damage(object_body(file_info))
    store.put(key, damaged)
    stored = await pull(file_info)
    assert stored.content_hash == f"{content_hash(file_info)}-1"
    assert (store.body(key), store.body(f"{key}-1")) == (damaged, object_body(file_info))
    # As a gateway does that has lost its state before it named the object.
    assert await pull(file_info) == stored
    await pull.check_all_is_given_back()


async def test_damage_under_every_key_is_told() -> None:
    pull = Pull()
    for number in range(limits.MAX_OBJECT_KEYS):
        pull.bucket.store.put(object_key(SMALL) + (f"-{number}" if number else ""), b"")
    with pytest.raises(DataError, match=object_key(SMALL)):
        await pull(SMALL)
    await pull.check_all_is_given_back()


async def test_a_refusal_is_told() -> None:
    bucket = SimulatedBucket(clock=lambda: 0.0)
    pull = Pull(bucket)
    for file_info in (SMALL, LARGE):
        with pytest.raises(StoreRefused):
            await pull(file_info)
        await pull.check_all_is_given_back()


async def test_some_files_at_once_share_the_memory() -> None:
    pull = Pull(budget=2 * PART)
    files = [file(number, sizes=(3000, 3000, 5000)) for number in range(5)] + [
        file(f"small {number}", sizes=(2000,)) for number in range(5)
    ]
    await asyncio.gather(*map(pull, files))
    for file_info in files:
        assert pull.bucket.store.body(object_key(file_info)) == object_body(file_info)
    assert pull.most_used <= 2 * PART
    await pull.check_all_is_given_back()
