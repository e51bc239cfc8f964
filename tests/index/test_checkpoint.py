"""Checkpoints come back as they were written, or are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import crc32c
import pytest

from tests.file_infos import device, encrypted_name, entry, file
from tests.index.gateways import KEYS, contents
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedStore
from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint, write_checkpoint
from untrusted_s3.index.entry import PeerCursor
from untrusted_s3.index.schema import STATE_VERSION
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.listing import list_checkpoints


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FolderState]:
    opened = FolderState(tmp_path / "one" / "state.sqlite")
    extend(opened, 3)
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[FolderState]:
    opened = FolderState(tmp_path / "other" / "state.sqlite")
    yield opened
    opened.close()


def extend(state: FolderState, segments: int) -> None:
    for _ in range(segments):
        position = state.position + 1
        change = entry(file(position))
        cursors = (PeerCursor(device(2), 2**64 - 1, position),)
        state.apply(position, Segment(device(1), bytes(16), 1000 * position, state.sequence + 1, (change,), cursors))


async def test_there_and_back(state: FolderState, other: FolderState) -> None:
    bucket = SimulatedBucket()
    assert await list_checkpoints(bucket, KEYS) == {}
    assert await write_checkpoint(bucket, KEYS, state) == 3
    assert list(await list_checkpoints(bucket, KEYS)) == [3]
    await read_checkpoint(bucket, KEYS, 3, other)
    assert contents(other) == contents(state)
    extend(other, 2)
    extend(state, 2)
    assert contents(other) == contents(state)


async def test_no_file_stays_behind(state: FolderState, other: FolderState) -> None:
    bucket = SimulatedBucket()
    await write_checkpoint(bucket, KEYS, state)
    await read_checkpoint(bucket, KEYS, 3, other)
    for folder in (state.path.parent, other.path.parent):
        assert {path.name for path in folder.iterdir()} <= {"state.sqlite", "state.sqlite-wal"}


async def test_what_is_appended_meanwhile_is_not_in_it(state: FolderState, other: FolderState) -> None:
    async def gate(call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST:
            extend(state, 1)

    bucket = SimulatedBucket(gate=gate)
    assert await write_checkpoint(bucket, KEYS, state) == 3
    assert state.position == 4
    bucket = SimulatedBucket(bucket.store)
    await read_checkpoint(bucket, KEYS, 3, other)
    assert other.position == 3
    assert other.entry(encrypted_name(4)) is None


async def test_all_of_them_and_nothing_else_are_listed() -> None:
    store = SimulatedStore()
    for name in (KEYS.checkpoint(7), KEYS.checkpoint(100), KEYS.checkpoint(9), KEYS.checkpoints + "999"):
        store.put(name, b"")
    store.put(KEYS.checkpoint(200) + ".part", b"")
    store.put(KEYS.checkpoints + "000000000000000003²0", b"")
    assert sorted(await list_checkpoints(SimulatedBucket(store), KEYS)) == [7, 9, 100]


async def test_a_missing_one(other: FolderState) -> None:
    extend(other, 1)
    before = contents(other)
    with pytest.raises(NoSuchKey):
        await read_checkpoint(SimulatedBucket(), KEYS, 3, other)
    assert contents(other) == before


async def test_a_damaged_one_is_named_and_changes_nothing(state: FolderState, other: FolderState) -> None:
    extend(other, 1)
    before = contents(other)
    bucket = SimulatedBucket()
    await write_checkpoint(bucket, KEYS, state)
    body = bucket.store.body(KEYS.checkpoint(3))
    flipped = bytearray(body)
    flipped[len(body) // 2] ^= 1
    for damaged in (b"", b"1234", body[:-4], body[: len(body) // 2], b"x" * len(body), bytes(flipped)):
        bucket.store.put(KEYS.checkpoint(3), damaged)
        with pytest.raises(DataError, match=KEYS.checkpoint(3)):
            await read_checkpoint(bucket, KEYS, 3, other)
        assert contents(other) == before


async def test_it_is_an_sqlite_file_and_its_checksum(state: FolderState, tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    await write_checkpoint(bucket, KEYS, state)
    body = bucket.store.body(KEYS.checkpoint(3))
    assert len(body) % 512 == 4
    assert int.from_bytes(body[-4:], "big") == crc32c.crc32c(body[:-4])
    (tmp_path / "database").write_bytes(body[:-4])
    database = sqlite3.connect(tmp_path / "database")
    assert database.execute("PRAGMA user_version").fetchone() == (STATE_VERSION,)
    assert dict(database.execute("SELECT key, value FROM meta"))["time_ms"] == 3000
    database.close()


async def test_one_under_the_key_of_another_position(state: FolderState, other: FolderState) -> None:
    bucket = SimulatedBucket()
    await write_checkpoint(bucket, KEYS, state)
    bucket.store.objects[KEYS.checkpoint(9)] = bucket.store.objects[KEYS.checkpoint(3)]
    with pytest.raises(DataError, match="another position"):
        await read_checkpoint(bucket, KEYS, 9, other)
