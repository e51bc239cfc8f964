from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import file
from tests.simulated import Call, Fault, Phase, Scheduler, SimulatedBucket, SimulatedStore, fail_on, fail_once
from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, name_hash
from untrusted_s3.errors import BlockUnavailable, DataError, StoreRefused, StoreUnreachable
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.node.file_pull import FilePuller
from untrusted_s3.store.layout import FolderKeys

KEYS = FolderKeys.of("folder")
PART = 4096
SMALL = file("small", sizes=(1064, 1500, 1064))
# Blocks that span one boundary of parts, several of them, and end right at one.
LARGE = file("large", sizes=(3000, 3000, 10_000, 4480, 1064, 1064))
EVEN = file("even", sizes=(4096, 4096, 4096))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SINGLE_PUT_SIZE", 4000)
    monkeypatch.setattr(limits, "MIN_PART_SIZE", PART)


def block_data(file_info: FileInfo, number: int, peer: str = "") -> bytes:
    block = file_info.message.blocks[number]
    return hashlib.shake_128(f"{peer} {file_info.name} {number}".encode()).digest(block.size)


def object_body(file_info: FileInfo, peer: str = "") -> bytes:
    """What the format says: the blocks in order, the file info, its length."""
    blocks = b"".join(block_data(file_info, number, peer) for number in range(len(file_info.message.blocks)))
    return blocks + file_info.raw + len(file_info.raw).to_bytes(4, "big")


def object_key(file_info: FileInfo) -> str:
    return KEYS.object(name_hash(file_info.name), file_info.content_hash())


class Pull:
    """A file puller over a simulated bucket, and a peer that gives blocks."""

    def __init__(self, bucket: SimulatedBucket | None = None, budget: int = 3 * PART) -> None:
        self.bucket = bucket or SimulatedBucket()
        self.budget = ByteBudget(budget)
        self.uploads = asyncio.Semaphore(2)
        self.fetched: Counter[int] = Counter()
        self.missing: set[int] = set()
        self.before_block: Callable[[], object] = lambda: asyncio.sleep(0)
        self.most_used = 0
        self.puller = FilePuller(self.bucket, KEYS, self.budget, self.uploads, Counters())

    async def __call__(self, file_info: FileInfo) -> StoredObject:
        async def fetch_block(number: int, block: pb.BlockInfo) -> memoryview:
            assert block == file_info.message.blocks[number]
            self.fetched[number] += 1
            self.most_used = max(self.most_used, self.budget.used)
            await self.before_block()  # type: ignore[misc]
            if number in self.missing:
                raise BlockUnavailable(f"block {number}")
            return memoryview(block_data(file_info, number))

        return await self.puller.pull(file_info, fetch_block)

    async def check_all_is_given_back(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        assert self.budget.used == 0
        assert not self.uploads.locked()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def check_stored(store: SimulatedStore, file_info: FileInfo, stored: StoredObject, part_size: int) -> None:
    body = store.body(object_key(file_info))
    assert body == object_body(file_info)
    step = part_size or len(body)
    checksums = tuple(crc32c.crc32c(body[start : start + step]) for start in range(0, len(body), step))
    assert stored == StoredObject(file_info.content_hash(), len(body), part_size, checksums)


@pytest.mark.parametrize(("file_info", "part_size"), [(SMALL, 0), (LARGE, PART), (EVEN, PART)])
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
    large = file_info.message.size > limits.SINGLE_PUT_SIZE

    async def play() -> None:
        scheduler = Scheduler(schedule)
        pull = Pull(SimulatedBucket(gate=scheduler.gate()), budget)
        block_gate = scheduler.gate(1)
        pull.before_block = lambda: block_gate(Call("block", ""), Phase.REQUEST)

        async def work() -> None:
            check_stored(pull.bucket.store, file_info, await pull(file_info), PART if large else 0)

        await scheduler.run(work())
        assert pull.fetched == Counter(range(len(sizes)))
        assert pull.most_used <= max(budget, PART if large else len(object_body(file_info)))
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
        assert not pull.bucket.store.uploads
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


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.ANSWER_LOST])
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
        check_stored(bucket.store, file_info, stored, PART if file_info is LARGE else 0)
        await pull.check_all_is_given_back()
    assert number > (1 if file_info is SMALL else 8)


async def test_the_first_failure_is_told_even_if_cleaning_up_fails() -> None:
    bucket = SimulatedBucket(fault=fail_once("abort_multipart_upload", Fault.UNREACHABLE))
    pull = Pull(bucket)
    pull.missing = {2}
    with pytest.raises(BlockUnavailable):
        await pull(LARGE)
    await pull.check_all_is_given_back()


async def test_cancelled_even_if_cleaning_up_fails() -> None:
    bucket = SimulatedBucket(fault=fail_once("abort_multipart_upload", Fault.UNREACHABLE))
    pull = Pull(bucket)
    never = asyncio.Event()
    pull.before_block = never.wait
    task = asyncio.ensure_future(pull(LARGE))
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pull.check_all_is_given_back()


@settings(deadline=None, max_examples=100)
@given(st.booleans(), st.integers(1, 60), st.lists(st.integers(0, 511), max_size=60), st.sampled_from([PART, 3 * PART]))
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
            if call.operation != "abort_multipart_upload":
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
            # Only an upload whose id we never learned stays, for the bucket's lifecycle.
            learned = pull.bucket.count("abort_multipart_upload")
            assert len(pull.bucket.store.uploads) <= pull.bucket.count("create_multipart_upload") - learned
            assert pull.bucket.count("upload_part") == 0 or learned == 1
        else:
            check_stored(pull.bucket.store, file_info, task.result(), PART if large else 0)
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
    checksums = tuple(crc32c.crc32c(body[start : start + PART]) for start in range(0, len(body), PART))
    assert stored == StoredObject(newer.content_hash(), len(body), PART, checksums)
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
    assert stored.part_crc32c[0] == crc32c.crc32c(body[:PART])
    await pull.check_all_is_given_back()


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: body[:-4] + b"\xff\xff\xff\xff",
        lambda body: body[: LARGE.message.size],
        lambda body: b"",
        lambda body: body[: LARGE.message.size] + file("other", sizes=(1064,)).trailer(),
        lambda body: body[: LARGE.message.size] + file("large", sizes=(4096,), content=7).trailer(),
        lambda body: body[: LARGE.message.size] + b"\xff" * 50 + (50).to_bytes(4, "big"),
    ],
)
async def test_something_else_under_the_key_is_not_adopted(damage: Callable[[bytes], bytes]) -> None:
    pull = Pull()
    pull.bucket.store.put(object_key(LARGE), damage(object_body(LARGE)))
    with pytest.raises(DataError, match=object_key(LARGE)):
        await pull(LARGE)
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
