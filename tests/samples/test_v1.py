"""Every later program reads a bucket of format version 1, as a program of that time wrote it, to the same values."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.samples.bucket import sample_bucket
from tests.samples.values import (
    DIGEST_OF_TWO_BLOCKS,
    EMPTY,
    FIRST_SMALL,
    GATEWAY,
    GONE,
    IDENTITY,
    KEYS,
    LARGE,
    LINK,
    OTHER_PEER,
    PASSWORD,
    PEER,
    SECOND_SMALL,
    SMALL,
    STORE_ID,
    STORED_EMPTY,
    STORED_GONE,
    STORED_LARGE,
    STORED_TWO_BLOCKS,
    SUB,
    TWO_BLOCKS,
)
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.errors import BlockDamaged, WrongPassphrase
from untrusted_s3.identity import sealed
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import PeerCursor, StoredObject
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.log_check import check_log
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.state import FolderState, FolderTotals
from untrusted_s3.objects.checksums import crc32c_of
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.store.layout import identity_key, node_key, peer_key
from untrusted_s3.store.records import (
    FolderRecord,
    NodeRecord,
    PeerRecord,
    open_store,
    read_folders,
    read_peers,
    read_record,
)
from untrusted_s3.vault.entry import Entry, Kind
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.reading import BlockReader


@pytest.fixture
def bucket() -> MemoryBucket:
    return sample_bucket("v1")


async def test_records(bucket: MemoryBucket) -> None:
    before = dict(bucket.objects)
    assert (await open_store(bucket)).store_id == STORE_ID
    addresses = ("tcp://192.0.2.1:22000", "tcp://[2001:db8::1]:22000")
    peer = PeerRecord(PEER, "Läptop", addresses, ("samples", "other"))
    assert await read_peers(bucket) == [peer]
    assert await read_record(bucket, peer_key(PEER), PeerRecord.from_json) == peer
    node = await read_record(bucket, node_key(GATEWAY), NodeRecord.from_json)
    assert node == NodeRecord(GATEWAY, "gateway", 1_700_000_300, "fedcba98" * 4)
    token = bytes.fromhex("a3850855bea517dd1937b5bb993e11af64ec3c3bab3caf000793928e7c713d2d")
    assert await read_folders(bucket) == [FolderRecord("samples", "Sämples", token, 0x7EDCBA9876543211)]
    assert bucket.objects == before


async def test_identity(bucket: MemoryBucket) -> None:
    assert identity_key("sample") in bucket.objects
    record = await sealed.read(bucket, "sample")
    assert record is not None
    assert (record.store_id, record.name, record.device_id) == (STORE_ID, "sample", IDENTITY)
    assert (record.n, record.r, record.p) == (1024, 8, 1)
    identity = await sealed.open_or_create(bucket, "sample", "a passphrase of some length")
    assert identity.device_id == IDENTITY
    with pytest.raises(WrongPassphrase):
        await sealed.open_or_create(bucket, "sample", "another passphrase")


def test_segments(bucket: MemoryBucket) -> None:
    first, second, third = (
        decode_segment(bucket.objects[KEYS.segment(number)], KEYS.segment(number)) for number in (1, 2, 3)
    )
    assert {first.writer, second.writer, third.writer} == {GATEWAY}
    assert first.append_id.hex() == "ed320b2f4e704df1cf0b53e255f8952c"
    times = [segment.time_ms for segment in (first, second, third)]
    assert times == [1_700_000_001_000, 1_700_000_061_000, 1_700_000_122_000]
    assert [segment.first_sequence for segment in (first, second, third)] == [1, 7, 9]
    assert [(entry.file_info.name, entry.stored) for entry in first.entries] == [
        (SUB, None),
        (SMALL, FIRST_SMALL),
        (EMPTY, STORED_EMPTY),
        (LARGE, STORED_LARGE),
        (LINK, None),
        (GONE, STORED_GONE),
    ]
    assert [(entry.file_info.name, entry.stored) for entry in second.entries] == [
        (GONE, None),
        (TWO_BLOCKS, STORED_TWO_BLOCKS),
    ]
    assert [(entry.file_info.name, entry.stored) for entry in third.entries] == [(SMALL, SECOND_SMALL)]
    assert third.entries[0].file_info.raw.endswith(b"\xfa\x3f\x03abc")  # a field that nobody knows
    assert second.cursors == (
        PeerCursor(PEER, 0x1122334455667788, 42),
        PeerCursor(OTHER_PEER, 0x8000000000000005, 7),
    )
    assert first.cursors == third.cursors == ()
    messages = [entry.file_info.message for segment in (first, second, third) for entry in segment.entries]
    assert [message.size for message in messages] == [0, 1064, 1064, 9_440_064, 0, 1064, 0, 200_080, 1064]
    assert [message.deleted for message in messages] == [False] * 6 + [True] + [False] * 2
    assert [message.type for message in messages] == [pb.DIRECTORY if name in (0, 4) else pb.FILE for name in range(9)]
    assert [message.version.counters[0].value for message in messages] == [3, 4, 2, 1, 5, 6, 7, 8, 9]
    assert len(messages[3].blocks) == 72


async def test_checkpoint(bucket: MemoryBucket, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await read_checkpoint(bucket, KEYS, 2, state)
        assert (state.position, state.sequence, state.time_ms) == (2, 8, 1_700_000_061_000)
        assert state.totals == FolderTotals(files=4, directories=2, deleted=1, bytes=9_642_272)
        stored = {name: entry.stored for name in (SUB, SMALL, EMPTY, LARGE, GONE) if (entry := state.entry(name))}
        assert stored == {SUB: None, SMALL: FIRST_SMALL, EMPTY: STORED_EMPTY, LARGE: STORED_LARGE, GONE: None}
        assert state.cursor(PEER) == IndexState(0x1122334455667788, 42)
        assert state.cursor(OTHER_PEER) == IndexState(0x8000000000000005, 7)
    finally:
        state.close()


async def test_the_log_is_sound_and_leads_to_the_newest_state(bucket: MemoryBucket, tmp_path: Path) -> None:
    assert [problem async for problem in check_log(bucket, KEYS)] == []
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await load_newest(bucket, KEYS, state)
        assert (state.position, state.sequence) == (3, 9)
        entry = state.entry(SMALL)
        assert entry is not None and entry.stored == SECOND_SMALL
    finally:
        state.close()


@pytest.mark.parametrize(
    ("name", "stored", "position"),
    [(SMALL, FIRST_SMALL, 1), (EMPTY, STORED_EMPTY, 1), (TWO_BLOCKS, STORED_TWO_BLOCKS, 2), (SMALL, SECOND_SMALL, 3)],
)
def test_objects(bucket: MemoryBucket, name: str, stored: StoredObject, position: int) -> None:
    segment = decode_segment(bucket.objects[KEYS.segment(position)], "key")
    (file_info,) = (entry.file_info for entry in segment.entries if entry.file_info.name == name)
    body = bucket.objects[KEYS.object(name, stored.object_name)]
    assert len(body) == stored.size
    assert crc32c_of([body]) == stored.part_crc32c[0]
    assert content_hash(file_info) == stored.object_name[:32]
    check_trailer(body[file_info.message.size :], file_info)


async def test_the_key_holder_reads_everything(bucket: MemoryBucket) -> None:
    async with open_folder(bucket, "samples", PASSWORD) as folder, BlockReader(folder) as reader:
        entries = {entry.path: entry for entry in folder.entries(deleted=True) if isinstance(entry, Entry)}
        assert sorted(entries) == ["gone", "large", "link", "sub", "sub/empty", "sub/small.txt", "sub/two blocks"]
        kinds = [entries[path].kind for path in ("large", "link", "sub")]
        assert kinds == [Kind.FILE, Kind.SYMLINK, Kind.DIRECTORY]
        assert (entries["sub"].mode, entries["link"].target) == (0o750, "sub/small.txt")
        assert {entry.modified_ns for entry in entries.values()} == {1_700_000_000_123_456_789}
        assert await reader.read(entries["sub/small.txt"]) == b"Another content.\n"
        assert await reader.read(entries["sub/empty"]) == b""
        two_blocks = await reader.read(entries["sub/two blocks"])
        assert len(two_blocks) == 200_000
        assert hashlib.sha256(two_blocks).hexdigest() == DIGEST_OF_TWO_BLOCKS
        with pytest.raises(BlockDamaged, match="missing"):
            await reader.read(entries["large"])  # its object is not in the sample
