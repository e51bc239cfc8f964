"""Large files: what is copied inside the store, what is continued, and what is fetched.

The block source encrypts a block differently for each request, as Syncthing does, so that an object with pieces of two
ciphertexts of one block is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import block_token, file
from tests.loops import RunAsync
from tests.objects.writing import GRID, PART, Writing, object_key
from tests.simulated import Call, Crash, Fault, Phase, SimulatedBucket, SimulatedStore, fail_on, fail_once
from tests.waiting import until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import (
    BlockUnavailable,
    ObjectArchived,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
    WriteStopped,
)
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import ObjectSettings

BLOCK = 2048
PARTS_OF_TWO = (BLOCK,) * 9 + (1064,)


def version(contents: Sequence[int], sizes: Sequence[int] = PARTS_OF_TWO, number: int = 1) -> FileInfo:
    """Return a file whose i-th block has content `contents[i]`."""
    message = pb.FileInfo()
    message.CopyFrom(file("large", number, sizes=sizes[: len(contents)]).message)
    for index, (block, content) in enumerate(zip(message.blocks, contents, strict=True)):
        block.hash = block_token(message.name, index, content)
    return parse_file_info(message.SerializeToString())


def encrypt(block: pb.BlockInfo) -> bytes:
    """Return a ciphertext of the block, a different one each time."""
    nonce = os.urandom(24)
    return nonce + hashlib.shake_128(nonce + block.hash).digest(block.size - len(nonce))


def check_object(store: SimulatedStore, file_info: FileInfo, stored: StoredObject) -> None:
    """Check that every block is one whole ciphertext of its content, and the checksums are those of the parts."""
    body = store.body(object_key(file_info))
    for block in file_info.message.blocks:
        data = body[block.offset : block.offset + block.size]
        assert data[24:] == hashlib.shake_128(data[:24] + block.hash).digest(block.size - 24), block.offset
    assert stored.size == len(body)
    assert stored.part_crc32c == tuple(
        crc32c.crc32c(body[start : start + stored.part_size]) for start in range(0, len(body), stored.part_size)
    )


class EncryptingWriting(Writing):
    """Its block source encrypts a block differently for each request."""

    def block(self, file_info: FileInfo, number: int) -> bytes:
        return encrypt(file_info.message.blocks[number])


async def written(writing: EncryptingWriting, file_info: FileInfo) -> Entry:
    entry = Entry(file_info, await writing(file_info))
    writing.fetched.clear()
    writing.bucket.calls.clear()
    return entry


async def test_one_changed_block_sends_one_part_and_copies_the_rest() -> None:
    writing = EncryptingWriting()
    before = await written(writing, version([0] * 9 + [0]))
    changed = version([0, 0, 0, 7, 0, 0, 0, 0, 0, 0], number=2)
    stored = await writing(changed, before)
    check_object(writing.bucket.store, changed, stored)
    assert writing.fetched == Counter([3])
    # Five parts of two blocks; the last one has the trailer, which differs.
    assert writing.bucket.count("upload_part_copy") == 3
    assert writing.bucket.count("upload_part") == 2
    assert writing.counter("parts_copied") == 3
    # The unchanged neighbour in the changed part, and the data of the last part; the checksums of copies are known.
    assert [(call.start, call.size) for call in writing.bucket.calls if call.operation == "get"] == [
        (2 * BLOCK, BLOCK),
        (8 * BLOCK, BLOCK + 1064),
    ]
    writing.check_all_is_released()


async def test_a_file_that_grows_copies_what_it_had() -> None:
    writing = EncryptingWriting()
    sizes = (BLOCK,) * 20
    before = await written(writing, version([0] * 9, sizes))
    grown = version([0] * 15, sizes, number=2)
    check_object(writing.bucket.store, grown, await writing(grown, before))
    assert writing.bucket.count("upload_part_copy") == 4
    assert writing.fetched == Counter(range(9, 15))


async def test_the_trailer_is_never_copied_though_the_old_file_had_data_there() -> None:
    writing = EncryptingWriting()
    sizes = (BLOCK,) * 20
    before = await written(writing, version([0] * 16, sizes))
    shorter = version([0] * 9, sizes, number=2)
    check_object(writing.bucket.store, shorter, await writing(shorter, before))
    body = writing.bucket.store.body(object_key(shorter))
    assert body[shorter.message.size :] == encode_trailer(shorter)
    assert writing.bucket.count("upload_part_copy") == 4
    assert not writing.fetched


async def test_with_another_grid_parts_are_still_copied_and_checksums_read() -> None:
    before = await written(EncryptingWriting(bucket := SimulatedBucket()), version([0] * 10))
    writing = EncryptingWriting(bucket, grid=dataclasses.replace(GRID, max_parts=3))
    changed = version([0] * 9 + [1], number=2)
    stored = await writing(changed, before)
    assert stored.part_size == 4 * BLOCK
    check_object(writing.bucket.store, changed, stored)
    assert writing.bucket.count("upload_part_copy") == 2
    assert writing.fetched == Counter([9])


async def test_an_old_object_without_equal_blocks_is_not_read() -> None:
    writing = EncryptingWriting()
    before = await written(writing, version([0] * 10))
    changed = version([1] * 10, number=2)
    check_object(writing.bucket.store, changed, await writing(changed, before))
    assert writing.fetched == Counter(range(10))
    assert writing.bucket.count("get") == writing.bucket.count("upload_part_copy") == 0


async def test_a_missing_old_object_does_not_matter() -> None:
    writing = EncryptingWriting()
    before = await written(writing, version([0] * 10))
    del writing.bucket.store.objects[object_key(before.file_info)]
    changed = version([0] * 9 + [1], number=2)
    check_object(writing.bucket.store, changed, await writing(changed, before))
    assert writing.fetched.keys() == set(range(10))
    assert not writing.bucket.store.uploads
    writing.check_all_is_released()


async def test_a_writer_goes_on_where_the_last_one_ended() -> None:
    writing = EncryptingWriting()
    file_info = version([0] * 10)
    writing.missing = {6}
    with pytest.raises(BlockUnavailable):
        await writing(file_info)
    (upload,) = writing.bucket.store.uploads.values()
    there = upload.parts.keys() - {5}  # the last one has the trailer
    assert len(there) >= 2
    writing.missing.clear()
    writing.fetched.clear()
    # Another gateway, or this one after a restart.
    again = EncryptingWriting(writing.bucket)
    check_object(writing.bucket.store, file_info, await again(file_info))
    assert again.fetched == Counter(number for number in range(10) if number // 2 + 1 not in there)
    assert again.counter("parts_resumed") == len(there)
    assert writing.bucket.count("create_multipart_upload") == 1
    assert not writing.bucket.store.uploads
    again.check_all_is_released()


async def test_a_refused_part_leaves_the_upload_for_the_next_try() -> None:
    """The store refuses what was signed long ago, for example after the gateway stood still."""
    bucket = SimulatedBucket(fault=fail_once("upload_part", Fault.REFUSED, number=3))
    writing = EncryptingWriting(bucket)
    file_info = version([0] * 10)
    with pytest.raises(StoreRefused):
        await writing(file_info)
    assert len(bucket.store.uploads) == 1
    check_object(bucket.store, file_info, await writing(file_info))
    assert bucket.count("create_multipart_upload") == 1
    assert not bucket.store.uploads


async def test_parts_of_another_trailer_or_grid_are_sent_again() -> None:
    bucket = SimulatedBucket(fault=fail_once("complete_multipart_upload", Fault.UNREACHABLE))
    writing = EncryptingWriting(bucket)
    with pytest.raises(StoreError):
        await writing(version([0] * 10))
    (upload_id,) = bucket.store.uploads
    bucket.store.add_part(upload_id, 2, b"of another size")
    bucket.store.add_part(upload_id, 77, b"beyond the end")
    writing.fetched.clear()
    # The same content with other metadata.
    newer = version([0] * 10, number=2)
    check_object(bucket.store, newer, await writing(newer))
    assert bucket.store.body(object_key(newer)).endswith(encode_trailer(newer))
    assert writing.fetched == Counter([2, 3, 8, 9])


async def test_parts_that_cut_a_block_are_sent_again() -> None:
    sizes = (BLOCK, BLOCK, 3000, 3000, 3000, 3000, 3000)
    bucket = SimulatedBucket(fault=fail_once("complete_multipart_upload", Fault.UNREACHABLE))
    writing = EncryptingWriting(bucket)
    file_info = version([0] * 7, sizes)
    with pytest.raises(StoreError):
        await writing(file_info)
    writing.fetched.clear()
    check_object(bucket.store, file_info, await writing(file_info))
    assert writing.fetched == Counter(range(2, 7)), "only the first part ends with a block"


async def test_a_lost_part_is_sent_again() -> None:
    writing = EncryptingWriting()
    file_info = version([0] * 10)
    bodies = iter([b"of another gateway"])

    async def spoil(call: Call, phase: Phase) -> None:
        if call.operation == "complete_multipart_upload":
            for upload in writing.bucket.store.uploads.values():
                upload.parts[3] = next(bodies, upload.parts[3])

    writing.bucket.gate = spoil
    with pytest.raises(UploadLost):
        await writing(file_info)
    writing.fetched.clear()
    check_object(writing.bucket.store, file_info, await writing(file_info))
    assert writing.fetched == Counter([4, 5, 8, 9])
    assert not writing.bucket.store.uploads


async def test_an_upload_that_is_gone_is_begun_again() -> None:
    writing = EncryptingWriting(SimulatedBucket(fault=fail_once("complete_multipart_upload", Fault.UNREACHABLE)))
    file_info = version([0] * 10)
    with pytest.raises(StoreUnreachable):
        await writing(file_info)

    async def spoil(call: Call, phase: Phase) -> None:
        if call.operation == "upload_part":
            writing.bucket.store.uploads.clear()

    writing.bucket.gate = spoil
    with pytest.raises(UploadLost):
        await writing(file_info)
    writing.check_all_is_released()
    writing.bucket.gate = SimulatedBucket().gate
    check_object(writing.bucket.store, file_info, await writing(file_info))


async def test_an_upload_that_the_store_will_not_complete_is_aborted() -> None:
    writing = EncryptingWriting()

    async def refuse(call: Call, phase: Phase) -> None:
        if call.operation == "complete_multipart_upload":
            raise StoreRefused("no")

    writing.bucket.gate = refuse
    with pytest.raises(StoreRefused):
        await writing(version([0] * 10))
    assert not writing.bucket.store.uploads


async def test_an_upload_of_unwanted_content_is_aborted_at_once() -> None:
    writing = EncryptingWriting(memory=2 * BLOCK)  # one part at a time
    writing.bucket.store.begin_upload(object_key(version([0] * 10)) + "-2")
    seen = itertools.count(1)

    async def change_at_the_third_block() -> None:
        writing.superseded = next(seen) >= 3

    writing.before_block = change_at_the_third_block
    with pytest.raises(WriteStopped, match="changed"):
        await writing(version([0] * 10))
    assert writing.fetched == Counter(range(4))
    assert [upload.key for upload in writing.bucket.store.uploads.values()] == [object_key(version([0] * 10)) + "-2"]
    writing.check_all_is_released()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_upload_that_fails_or_is_cancelled_after_a_change_is_aborted(cancelled: bool) -> None:
    writing = EncryptingWriting()
    never = asyncio.Event()

    async def change() -> None:
        writing.superseded = True
        if cancelled:
            await never.wait()

    writing.before_block = change
    writing.missing = set(range(10))
    task = asyncio.ensure_future(writing(version([0] * 10)))
    if cancelled:
        await until(lambda: writing.superseded)
        task.cancel()
    with pytest.raises((WriteStopped, BlockUnavailable, asyncio.CancelledError)):
        await task
    assert writing.bucket.count("create_multipart_upload") == 1
    assert not writing.bucket.store.uploads
    writing.check_all_is_released()


async def test_after_a_failure_no_part_is_begun_but_those_under_way_end() -> None:
    writing = EncryptingWriting(memory=6 * BLOCK)  # two parts at a time: one folder may hold two thirds
    go_on = asyncio.Event()
    fetch_order = itertools.count()

    async def wait_behind_the_first_part() -> None:
        if next(fetch_order) >= 2:
            await go_on.wait()

    writing.before_block = wait_behind_the_first_part
    writing.missing = {1}
    task = asyncio.ensure_future(writing(version([0] * 10)))
    await until(lambda: writing.fetched == Counter(range(4)))
    assert not task.done()
    go_on.set()
    with pytest.raises(BlockUnavailable, match="block 1"):
        await task
    assert writing.fetched == Counter(range(4))
    (upload,) = writing.bucket.store.uploads.values()
    assert set(upload.parts) == {2}
    writing.check_all_is_released()


async def test_copies_run_a_few_at_a_time_and_end_with_the_first_failure() -> None:
    sizes = (BLOCK,) * 40
    writing = EncryptingWriting(settings=ObjectSettings(concurrent_part_copies=2))
    before = await written(writing, version([0] * 40, sizes))
    writing.bucket.fault = fail_once("upload_part_copy", Fault.UNREACHABLE, number=3)

    async def take_time(call: Call, phase: Phase) -> None:
        await asyncio.sleep(0)

    writing.bucket.gate = take_time
    changed = version([0] * 39 + [1], sizes, number=2)
    with pytest.raises(StoreUnreachable):
        await writing(changed, before)
    assert writing.bucket.count("upload_part_copy") <= 6
    writing.check_all_is_released()
    writing.bucket.calls.clear()
    check_object(writing.bucket.store, changed, await writing(changed, before))
    assert writing.bucket.count("upload_part_copy") >= 15
    assert writing.counter("parts_copied") == 19
    assert writing.counter("part_bytes_copied") == 19 * 2 * BLOCK


async def test_an_old_object_that_vanishes_during_the_copy_does_not_matter() -> None:
    writing = EncryptingWriting()
    before = await written(writing, version([0] * 10))

    async def vanish(call: Call, phase: Phase) -> None:
        if writing.bucket.count("upload_part_copy") == 3:
            writing.bucket.store.objects.pop(object_key(before.file_info), None)

    writing.bucket.gate = vanish
    changed = version([1] + [0] * 9, number=2)
    check_object(writing.bucket.store, changed, await writing(changed, before))
    assert writing.counter("parts_copied") >= 1
    assert not writing.bucket.store.uploads
    writing.check_all_is_released()


async def test_an_old_object_in_an_archive_does_not_matter() -> None:
    writing = EncryptingWriting()
    before = await written(writing, version([0] * 10))

    async def refuse(call: Call, phase: Phase) -> None:
        if call.operation in ("get", "upload_part_copy"):
            raise ObjectArchived("the object is in an archive storage class")

    opened, writing.bucket.gate = writing.bucket.gate, refuse
    changed = version([1] + [0] * 9, number=2)
    stored = await writing(changed, before)
    assert writing.counter("parts_copied") == 0
    writing.bucket.gate = opened
    check_object(writing.bucket.store, changed, stored)
    writing.check_all_is_released()


async def test_two_gateways_on_one_upload_come_to_an_end() -> None:
    """The second continues the upload of the first, which still works on it."""
    file_info = version([0] * 10)
    first = EncryptingWriting(SimulatedBucket(fault=fail_once("complete_multipart_upload", Fault.UNREACHABLE)))
    with pytest.raises(StoreUnreachable):
        await first(file_info)
    gateways = [EncryptingWriting(SimulatedBucket(first.bucket.store)) for _ in range(2)]

    async def try_until_it_is_there(writing: EncryptingWriting) -> StoredObject:
        while True:
            try:
                return await writing(file_info)
            except StoreError:
                await asyncio.sleep(0)

    for stored in await asyncio.gather(*map(try_until_it_is_there, gateways)):
        check_object(first.bucket.store, file_info, stored)
    assert not first.bucket.store.uploads
    assert first.bucket.count("create_multipart_upload") == 1


async def test_no_part_begins_while_draining() -> None:
    writing = EncryptingWriting(memory=2 * BLOCK)  # one part at a time
    file_info = version([0] * 10)
    seen = itertools.count(1)

    async def stop_at_the_third_block() -> None:
        if next(seen) == 3:
            writing.writer.drain()

    writing.before_block = stop_at_the_third_block
    with pytest.raises(WriteStopped, match="stops"):
        await writing(file_info)
    assert writing.fetched == Counter(range(4))
    (upload,) = writing.bucket.store.uploads.values()
    assert set(upload.parts) == {1, 2}
    writing.check_all_is_released()


contents = st.lists(st.integers(0, 1), min_size=3, max_size=14)


@settings(deadline=None, max_examples=150)
@given(
    contents,
    contents,
    st.sampled_from([(BLOCK,) * 14, tuple(range(1100, 4000, 200))[:14]]),
    st.lists(st.tuples(st.integers(1, 25), st.sampled_from([*Fault])), max_size=3),
)
def test_any_change_with_any_faults(
    run_async: RunAsync, old: list[int], new: list[int], sizes: tuple[int, ...], faults: list[tuple[int, Fault]]
) -> None:
    async def play() -> None:
        writing = EncryptingWriting(memory=4 * PART)
        before = await written(writing, version(old, sizes))
        changed = version(new, sizes, number=2)
        for number, fault in faults:
            writing.bucket.fault = fail_on({number: fault})
            with contextlib.suppress(StoreError, Crash):
                await writing(changed, before)
            # After a crash, only what is in the store is left.
            writing = EncryptingWriting(SimulatedBucket(writing.bucket.store), memory=4 * PART)
        stored = await writing(changed, before)
        if stored.part_size:
            check_object(writing.bucket.store, changed, stored)
            same = {number for number, (one, other) in enumerate(zip(old, new, strict=False)) if one == other}
            assert not same & writing.fetched.keys()
        writing.check_all_is_released()

    run_async(play())
