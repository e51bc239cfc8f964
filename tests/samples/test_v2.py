"""Every later program reads a bucket of format version 2, which was one of version 1 before, to the same values."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.samples.bucket import sample_bucket
from tests.samples.values import (
    EMPTY,
    FIRST_SMALL,
    GATEWAY,
    GONE,
    KEYS,
    LARGE,
    LINK,
    OTHER_PEER,
    PASSWORD,
    PEER,
    SECOND_SMALL,
    SMALL,
    STORE_ID,
    STORED_TWO_BLOCKS,
    SUB,
    TWO_BLOCKS,
)
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import Confirmation, DeclinedVersion, PeerCursor, Removal, Renewal, StoredObject
from untrusted_s3.index.history import load_as_of, load_newest
from untrusted_s3.index.log_check import check_log
from untrusted_s3.index.segment import Segment, decode_segment
from untrusted_s3.index.state import FolderState, FolderTotals, short_append_id
from untrusted_s3.store.layout import name_key, peer_key
from untrusted_s3.store.records import PeerRecord, StoreRecord, open_store, read_record
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.reading import BlockReader

NEW = "S.syncthing-enc/4F/GNVSF3INUVDQNF7NFO082O5RUDS8"
BAD = "3.syncthing-enc/M4/GOLJHMR8G6L3U08J5J8KV37BUO1O"
OTHER_LINK = "I.syncthing-enc/EN/RC9IP3CTS0L0I2QL7LII0IQGAI73GV9RAV69DHMVJN0ET"
LOST = "H.syncthing-enc/H5/BMSKFATV7J7CPUQFF282T92MAD59O"
STORED_NEW = StoredObject("102cb3858929d698f2dc8bf4b6693656", 1316, 0, (2555587479,))
STORED_EMPTY = StoredObject("b5d45db02b1956d0e6350ca97dab390e", 1327, 0, (3500799498,))
INDEX_ID = 0x0123456789ABCDEF


@pytest.fixture
def bucket() -> MemoryBucket:
    return sample_bucket("v2")


def segment(bucket: MemoryBucket, position: int) -> Segment:
    return decode_segment(bucket.objects[KEYS.segment(position)], KEYS.segment(position))


async def test_records(bucket: MemoryBucket) -> None:
    before = dict(bucket.objects)
    assert await open_store(bucket, upgrade=True) == StoreRecord(STORE_ID, 2)
    peer = await read_record(bucket, peer_key(OTHER_PEER), PeerRecord.from_json)
    assert peer == PeerRecord(OTHER_PEER, "read only", (), (), read_only=True, folders=("samples",))
    assert bucket.objects == before


def test_segments(bucket: MemoryBucket) -> None:
    magics = [bucket.objects[KEYS.segment(position)][:8] for position in range(1, 10)]
    assert magics == [b"US3SEG\x00\x01"] * 3 + [b"US3SEG\x00\x02"] * 6
    fourth, fifth, sixth = (segment(bucket, position) for position in (4, 5, 6))
    assert {fourth.writer, fifth.writer, sixth.writer} == {GATEWAY}
    assert [found.time_ms for found in (fourth, fifth, sixth)] == [
        1_700_000_200_000,
        1_700_000_300_000,
        1_700_000_400_000,
    ]
    assert [found.first_sequence for found in (fourth, fifth, sixth)] == [10, 13, 14]
    assert [(entry.file_info.name, entry.stored, entry.source) for entry in fourth.entries] == [
        (NEW, STORED_NEW, PEER),
        (BAD, None, OTHER_PEER),
        (OTHER_LINK, None, None),
    ]
    assert fourth.renewal is None
    assert [found.previous for found in (fourth, fifth, sixth)] == [
        short_append_id(segment(bucket, position)) for position in (3, 4, 5)
    ]
    removals = (
        Removal(name_key(TWO_BLOCKS), STORED_TWO_BLOCKS.object_name),
        Removal(name_key(BAD)),
        Removal(name_key(LOST), "f" * 32, LOST, bytes.fromhex("0a0408011028")),
    )
    assert fifth.renewal == Renewal(INDEX_ID, removals)
    assert [(entry.file_info.name, entry.stored, entry.source) for entry in fifth.entries] == [
        (SMALL, FIRST_SMALL, PEER)
    ]
    assert sixth.cursors == (PeerCursor(OTHER_PEER, 9, 3),)


def test_segments_with_claims(bucket: MemoryBucket) -> None:
    seventh, eighth, ninth = (segment(bucket, position) for position in (7, 8, 9))
    (entry,) = seventh.entries
    assert (entry.file_info.name, entry.stored, entry.source) == (SMALL, FIRST_SMALL, PEER)
    assert entry.claims is not None
    assert entry.claims.claimed_by == (PEER,)
    (dissent,) = entry.claims.dissents
    assert (dissent.entry.file_info.name, dissent.entry.stored) == (SMALL, SECOND_SMALL)
    assert (dissent.entry.source, dissent.claimed_by) == (OTHER_PEER, tuple(sorted((OTHER_PEER, GATEWAY))))
    assert entry.claims.declined == (
        DeclinedVersion(OTHER_PEER, 0, 1_700_000_450_000, 2),
        DeclinedVersion(PEER, 1, 1_700_000_460_000, 1, shown_again=True),
    )
    assert eighth.cursors == (PeerCursor(OTHER_PEER, 10, 0),)
    assert eighth.confirmations == (Confirmation(PEER, (range(12, 13), range(14, 16))),)
    assert [(entry.file_info.name, entry.source, entry.claims) for entry in ninth.entries] == [
        (NEW, OTHER_PEER, None),
        (SMALL, OTHER_PEER, None),
    ]


async def test_checkpoint_with_claims(bucket: MemoryBucket, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await read_checkpoint(bucket, KEYS, 7, state)
        assert (state.position, state.sequence, state.disputed_count) == (7, 15, 1)
        (row,) = state.disputed()
        (entry,) = segment(bucket, 7).entries
        assert (row.sequence, row.whole_entry) == (15, entry)
        claimed = {sequence: state.claimed_by(sequence) for sequence, _ in state.file_infos_after(0, -1)}
        assert {sequence: some for sequence, some in claimed.items() if some} == {
            10: {PEER},
            14: {OTHER_PEER},
            15: {PEER},
        }
    finally:
        state.close()


@pytest.mark.parametrize("checkpoints", [(2,), (2, 5), (2, 5, 7), ()], ids=str)
async def test_every_way_leads_to_the_same_claims(
    checkpoints: tuple[int, ...], bucket: MemoryBucket, tmp_path: Path
) -> None:
    for position in {2, 5, 7} - set(checkpoints):
        del bucket.objects[KEYS.checkpoint(position)]
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await load_newest(bucket, KEYS, state)
        assert (state.position, state.sequence, state.disputed_count) == (9, 17, 1)
        assert {sequence: state.claimed_by(sequence) for sequence, _ in state.file_infos_after(9, -1)} == {
            12: {PEER},
            14: {PEER},
            16: {PEER, OTHER_PEER},
            17: {PEER, OTHER_PEER},
        }
        (row,) = state.disputed()
        current = row.claims.current
        assert row.claims.claimed == {PEER: current, OTHER_PEER: current, GATEWAY: row.claims.dissents[0]}
        assert row.claims.declined == {}
        assert state.cursor(OTHER_PEER) == IndexState(10, 0)
    finally:
        state.close()


async def test_checkpoint(bucket: MemoryBucket, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await read_checkpoint(bucket, KEYS, 5, state)
        assert (state.position, state.sequence, state.time_ms) == (5, 13, 1_700_000_300_000)
        assert state.append_id == int.from_bytes(segment(bucket, 5).append_id[:8], "big") >> 1
        assert state.index_id == INDEX_ID
        assert state.totals == FolderTotals(files=4, directories=3, deleted=1, bytes=9_443_256)
        found = {name: entry for name in (SUB, SMALL, LARGE, NEW) if (entry := state.entry(name))}
        assert {name: entry.source for name, entry in found.items()} == {SUB: None, SMALL: PEER, LARGE: None, NEW: PEER}
        assert (found[SMALL].stored, found[NEW].stored) == (FIRST_SMALL, STORED_NEW)
        assert state.entry(TWO_BLOCKS) is state.entry(BAD) is None
        missing = {found.name: found for found in state.missing()}
        assert {(found.name_hash, found.name, found.object_name) for found in missing.values()} == {
            (name_key(TWO_BLOCKS), TWO_BLOCKS, STORED_TWO_BLOCKS.object_name),
            (name_key(LOST), LOST, "f" * 32),
        }
        assert missing[TWO_BLOCKS].version.counters[0].value == 8
        assert missing[LOST].version.counters[0].value == 40
        assert state.condemned(name_key(TWO_BLOCKS)) == {STORED_TWO_BLOCKS.object_name}
        assert state.cursor(PEER) == state.cursor(OTHER_PEER) == IndexState()
    finally:
        state.close()


async def test_the_log_is_sound_and_leads_to_the_newest_state(bucket: MemoryBucket, tmp_path: Path) -> None:
    assert [problem async for problem in check_log(bucket, KEYS)] == []
    del bucket.objects[KEYS.checkpoint(5)], bucket.objects[KEYS.checkpoint(7)]
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await load_newest(bucket, KEYS, state)
        assert (state.position, state.sequence, state.index_id) == (9, 17, INDEX_ID)
        names = [found.file_info.name for found in map(state.entry_at, dict(state.file_infos_after(0, -1)))]
        assert names == [SUB, LARGE, LINK, GONE, OTHER_LINK, EMPTY, NEW, SMALL]
        entry = state.entry(EMPTY)
        assert entry is not None and (entry.stored, entry.source) == (STORED_EMPTY, OTHER_PEER)
        assert state.missing_count == 2
    finally:
        state.close()


async def test_before_the_renewal(bucket: MemoryBucket, tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    try:
        await load_as_of(bucket, KEYS, state, 1_700_000_299_999)
        assert (state.position, state.index_id, state.missing_count) == (4, 0, 0)
        small, two_blocks = state.entry(SMALL), state.entry(TWO_BLOCKS)
        assert small is not None and small.stored == SECOND_SMALL
        assert two_blocks is not None and two_blocks.stored == STORED_TWO_BLOCKS
        assert state.cursor(PEER) == IndexState(0x1122334455667788, 50)
    finally:
        state.close()


async def test_the_key_holder_reads_it(bucket: MemoryBucket) -> None:
    async with open_folder(bucket, "samples", PASSWORD) as folder, BlockReader(folder) as reader:
        entries = {entry.path: entry for entry in folder.entries() if isinstance(entry, Entry)}
        assert sorted(entries) == ["large", "link", "new", "sub", "sub/empty", "sub/small.txt", "unknown source"]
        assert await reader.read(entries["new"]) == b"Something new.\n"
        # A dissent that is based on the current version, which a way back has brought again
        assert await reader.read(entries["sub/small.txt"]) == b"Another content.\n"
        (current,) = folder.other_versions("sub/small.txt".__eq__)
        assert await reader.read(current) == b"The content of a small file.\n"
        assert await reader.read(entries["sub/empty"]) == b""
    then = datetime.fromtimestamp(1_700_000_299, UTC)
    async with open_folder(bucket, "samples", PASSWORD, as_of=then) as folder, BlockReader(folder) as reader:
        entries = {entry.path: entry for entry in folder.entries() if isinstance(entry, Entry)}
        assert await reader.read(entries["sub/small.txt"]) == b"Another content.\n"
