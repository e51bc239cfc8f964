"""Reading files: the stored bytes come back, damage is reported, and memory and requests stay bounded."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import RunAsync
from tests.simulated import Call, Fault, Phase, SimulatedBucket, fail_once, fast_directory
from tests.vault.stored_folder import BLOCK_SIZE, FOLDER_ID, PASSWORD, StoredFolder, flip, random_bytes, stored_folder
from tests.waiting import PATIENCE
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import BlockDamaged, StoreRefused, StoreUnreachable, UsageError
from untrusted_s3.settings import ReadSettings
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import Folder, open_folder
from untrusted_s3.vault.reading import Block, BlockReader

PATH = "directory/file"


def opened(stored: StoredFolder) -> Folder:
    """Return the folder with the state that the log has now; the log is not read."""
    return Folder(stored.bucket, stored.record, stored.key, stored.state)


async def stored_file(
    bucket: SimulatedBucket, directory: Path, data: bytes, block_size: int = BLOCK_SIZE
) -> tuple[Folder, Entry]:
    """Return a folder with one file, and its entry."""
    stored = await stored_folder(bucket, directory)
    await stored.append(await stored.file(PATH, data, block_size=block_size))
    folder = opened(stored)
    entry = folder.entry(PATH)
    assert isinstance(entry, Entry)
    return folder, entry


async def collect(reader: BlockReader, entry: Entry, start: int = 0, end: int | None = None) -> list[Block]:
    return [block async for block in reader.blocks(entry, start, end)]


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(0, 9000),
    block_size=st.sampled_from([100, 1000, 1024, 3000]),
    read_size=st.sampled_from([1, 1100, 5000, 100_000]),
    memory=st.sampled_from([1, 5000, 20_000, 2_000_000]),
    start=st.integers(0, 10_000),
    length=st.none() | st.integers(0, 10_000),
    small=st.sampled_from([0, 1500, 100_000]),
)
def test_any_part_of_any_file(
    run_async: RunAsync,
    size: int,
    block_size: int,
    read_size: int,
    memory: int,
    start: int,
    length: int | None,
    small: int,
) -> None:
    data = random_bytes(size)
    end = None if length is None else start + length

    async def play() -> None:
        settings = ReadSettings(memory=memory, threads=2, read_size=read_size, small_read_size=small)
        with fast_directory() as directory:
            folder, entry = await stored_file(SimulatedBucket(), directory, data, block_size)
            async with BlockReader(folder, settings) as reader:
                assert await reader.read(entry, start, length) == data[start:end]
                offset = min(start, size)
                for block in await collect(reader, entry, start, end):
                    assert block.offset == offset
                    offset += len(block.data)
                assert offset == max(min(start, size), len(data[:end]))
            assert reader.memory_used == 0
            folder.close()

    run_async(play())


async def test_neighbouring_blocks_come_by_one_request_and_several_are_under_way(tmp_path: Path) -> None:
    settings = ReadSettings(read_size=4 * (BLOCK_SIZE + 40))
    running = most = 0
    all_there = asyncio.Event()

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal running, most
        running += 1 if phase is Phase.REQUEST else -1
        most = max(most, running)
        if running == settings.read_ahead:
            all_there.set()
        await all_there.wait()

    bucket = SimulatedBucket()
    data = random_bytes(30 * BLOCK_SIZE + 5)
    folder, entry = await stored_file(bucket, tmp_path, data)
    bucket.gate = gate
    bucket.calls.clear()
    async with BlockReader(folder, settings) as reader:
        assert await reader.read(entry) == data
    sizes = [call.size for call in bucket.calls]
    assert sizes == 7 * [4 * (BLOCK_SIZE + 40)] + [2 * (BLOCK_SIZE + 40) + 1064]
    assert most == settings.read_ahead


@pytest.mark.parametrize("memory", [1, 16 * (BLOCK_SIZE + 40), 64 * (BLOCK_SIZE + 40)])
async def test_a_file_whose_last_range_is_small_with_little_memory(tmp_path: Path, memory: int) -> None:
    data = random_bytes(37 * BLOCK_SIZE)
    folder, entry = await stored_file(SimulatedBucket(), tmp_path, data)
    settings = ReadSettings(memory=memory, read_size=16 * (BLOCK_SIZE + 40))
    async with BlockReader(folder, settings) as reader, asyncio.timeout(PATIENCE):
        assert await reader.read(entry) == data


async def test_a_small_file_is_one_request(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder, entry = await stored_file(bucket, tmp_path, b"small")
    bucket.calls.clear()
    async with BlockReader(folder) as reader:
        assert await reader.read(entry) == b"small"
    assert [(call.operation, call.start, call.size) for call in bucket.calls] == [("get", 0, 1064)]


async def test_memory_is_bounded_with_many_readers_who_stop_in_the_middle(tmp_path: Path) -> None:
    one = 4 * (BLOCK_SIZE + 40)
    data = random_bytes(20 * BLOCK_SIZE)
    folder, entry = await stored_file(SimulatedBucket(), tmp_path, data)
    most = 0
    settings = ReadSettings(memory=4 * one, read_size=2 * (BLOCK_SIZE + 40))
    async with BlockReader(folder, settings) as reader, contextlib.AsyncExitStack() as stack:
        readings = [await stack.enter_async_context(contextlib.aclosing(reader.blocks(entry))) for _ in range(10)]
        # All of them have begun before the first goes on, so that any of them could block the others.
        for _ in range(5):
            for reading in readings:
                await anext(reading)
                await asyncio.sleep(0)
                most = max(most, reader.memory_used)
    assert one < most <= (4 + 10) * one
    assert reader.memory_used == 0


async def test_closing_releases_what_was_read_ahead(tmp_path: Path) -> None:
    folder, entry = await stored_file(SimulatedBucket(), tmp_path, random_bytes(10 * BLOCK_SIZE))
    async with BlockReader(folder, ReadSettings(read_size=BLOCK_SIZE + 40)) as reader:
        for taken in (1, 3):
            async with contextlib.aclosing(reader.blocks(entry)) as blocks:
                for _ in range(taken):
                    await anext(blocks)
                assert reader.memory_used > 0
            assert reader.memory_used == 0
        assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("position", [0, 30, BLOCK_SIZE // 2, BLOCK_SIZE + 39])
async def test_a_flipped_bit_is_found_and_what_is_before_and_behind_it_can_be_read(
    tmp_path: Path, position: int
) -> None:
    bucket = SimulatedBucket()
    data = random_bytes(4 * BLOCK_SIZE)
    folder, entry = await stored_file(bucket, tmp_path, data)
    flip(bucket, entry.key, 2 * (BLOCK_SIZE + 40) + position)
    found = b""
    async with BlockReader(folder) as reader:
        with pytest.raises(BlockDamaged) as error:
            async for block in reader.blocks(entry):
                found += block.data
        assert (error.value.path, error.value.offset) == (PATH, 2 * BLOCK_SIZE)
        assert found == data[: 2 * BLOCK_SIZE]
        assert await reader.read(entry, 3 * BLOCK_SIZE) == data[3 * BLOCK_SIZE :]
        assert reader.memory_used == 0


async def test_genuine_blocks_that_changed_places(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder, entry = await stored_file(bucket, tmp_path, random_bytes(2 * BLOCK_SIZE))
    body, size = bucket.store.body(entry.key), BLOCK_SIZE + 40
    bucket.store.put(entry.key, body[size : 2 * size] + body[:size] + body[2 * size :])
    async with BlockReader(folder) as reader:
        with pytest.raises(BlockDamaged, match="SHA-256") as error:
            await reader.read(entry)
    assert error.value.offset == 0


@pytest.mark.parametrize("size", [0, 10, BLOCK_SIZE + 40, 2 * BLOCK_SIZE])
async def test_an_object_that_is_cut_short(tmp_path: Path, size: int) -> None:
    bucket = SimulatedBucket()
    data = random_bytes(3 * BLOCK_SIZE)
    folder, entry = await stored_file(bucket, tmp_path, data)
    bucket.store.put(entry.key, bucket.store.body(entry.key)[:size])
    async with BlockReader(folder) as reader:
        with pytest.raises(BlockDamaged) as error:
            await reader.read(entry)
    assert error.value.offset == 0, "all blocks are read at once"


@pytest.mark.parametrize("answer", [StoreRefused("416"), StoreUnreachable("too few bytes")])
async def test_a_store_that_refuses_ranges_behind_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    bucket = SimulatedBucket()
    folder, entry = await stored_file(bucket, tmp_path, random_bytes(BLOCK_SIZE))

    async def get(key: str, start: int = 0, size: int | None = None) -> bytes:
        raise answer

    monkeypatch.setattr(bucket, "get", get)
    async with BlockReader(folder) as reader:
        with pytest.raises(type(answer)):
            await reader.read(entry)
        bucket.store.put(entry.key, b"short")
        with pytest.raises(BlockDamaged, match="cut short"):
            await reader.read(entry)


async def test_a_missing_object(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder, entry = await stored_file(bucket, tmp_path, b"x")
    del bucket.store.objects[entry.key]
    async with BlockReader(folder) as reader:
        with pytest.raises(BlockDamaged, match="missing"):
            await reader.read(entry)


async def test_a_failing_store_is_not_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder, entry = await stored_file(bucket, tmp_path, b"x")
    bucket.fault = fail_once("get", Fault.UNREACHABLE)
    async with BlockReader(folder) as reader:
        with pytest.raises(StoreUnreachable):
            await reader.read(entry)
        assert reader.memory_used == 0
        assert await reader.read(entry) == b"x"


async def test_only_files_have_data(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(stored.directory("directory"), stored.symlink("symlink", "x"), stored.deleted("deleted"))
    folder = opened(stored)
    async with BlockReader(folder) as reader:
        for path in ("directory", "symlink", "deleted"):
            entry = folder.entry(path)
            assert isinstance(entry, Entry)
            with pytest.raises(UsageError, match=path):
                await reader.read(entry)


async def test_old_peers_tokens_without_offsets(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    data = random_bytes(3 * BLOCK_SIZE)
    real = pb.FileInfo()

    def note(message: pb.FileInfo) -> None:
        real.CopyFrom(message)

    def old_tokens(fake: pb.FileInfo) -> None:
        for outer, inner in zip(fake.blocks, real.blocks, strict=True):
            outer.hash = stored.key.file_key(PATH).block_token(inner.hash, None)

    await stored.append(await stored.file(PATH, data, change_real=note, change_fake=old_tokens))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder, BlockReader(folder) as reader:
        entry = folder.entry(PATH)
        assert isinstance(entry, Entry)
        assert await reader.read(entry) == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda real: setattr(real, "size", 2**62), "for a size of"),
        (lambda real: setattr(real.blocks[1], "offset", 0), "cannot be"),
        (lambda real: setattr(real.blocks[0], "size", 2**31 - 1), "cannot be"),
        (lambda real: setattr(real.blocks[0], "size", -1), "cannot be"),
    ],
)
async def test_impossible_block_lists_are_damage_before_anything_is_read(
    tmp_path: Path, change: object, reason: str
) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    entry = await stored.file(PATH, bytes(2 * BLOCK_SIZE))
    real = pb.FileInfo.FromString(stored.key.file_key(PATH).decrypt(entry.file_info.message.encrypted))
    assert callable(change)
    change(real)

    # Only somebody with the password can make such a file info.
    def put_inside(fake: pb.FileInfo) -> None:
        fake.encrypted = stored.key.file_key(PATH).encrypt(real.SerializeToString())

    await stored.append(await stored.file(PATH, bytes(2 * BLOCK_SIZE), change_fake=put_inside))
    found = opened(stored).entry(PATH)
    assert found is not None and not isinstance(found, Entry)
    assert reason in found.reason or "version" in found.reason
