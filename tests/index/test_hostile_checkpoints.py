"""Checkpoints with a right checksum and any content: each is a sound state, or refused and named, and none hangs.

UNTRUSTED_S3_EXAMPLES sets the number of examples, for a long run by hand.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.index.gateways import KEYS, contents
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory
from untrusted_s3.bep import bep_pb2 as bep
from untrusted_s3.errors import DataError, StateDamaged
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.entry import (
    Confirmation,
    DeclinedVersion,
    Dissent,
    Entry,
    EntryClaims,
    PeerCursor,
    Removal,
    Renewal,
    StoredObject,
)
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.schema import COUNTERS
from untrusted_s3.index.segment import Segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

EXAMPLES = int(os.environ.get("UNTRUSTED_S3_EXAMPLES", "60"))
RUN: dict[str, Any] = {"deadline": None, "max_examples": EXAMPLES, "suppress_health_check": list(HealthCheck)}
KEY = KEYS.checkpoint(2)
LARGE = StoredObject("c" * 32 + "-1", 20_000, 8_000, (1, 2, 3))
SEGMENTS = (
    Segment(
        device(1),
        bytes(16),
        1_700_000_000_000,
        1,
        (
            replace(entry(file("a")), source=device(2)),
            entry(directory("b")),
            replace(entry(deleted("c")), source=device(3)),
            entry(file("e", sizes=(2000, 3000))),
            entry(file("lost")),
        ),
        (),
    ),
    Segment(
        device(1),
        bytes(16),
        1_700_000_001_000,
        6,
        (
            Entry(file("f", sizes=(9000, 9000)), LARGE, device(2)),
            replace(
                entry(file("g", 4)),
                source=device(2),
                claims=EntryClaims(
                    (device(2), device(4)),
                    (
                        Dissent(replace(entry(file("g", 3)), source=device(3)), (device(3), device(5))),
                        Dissent(entry(deleted("g", 2)), (device(6),)),
                    ),
                    (DeclinedVersion(device(3), 0, 1_700_000_000_000), DeclinedVersion(device(2), 2, 5, 3)),
                ),
            ),
        ),
        (PeerCursor(device(2), 2**64 - 1, 5), PeerCursor(device(3), 1, 2)),
        Renewal(77, (Removal(name_key(encrypted_name("lost")), "d" * 32), Removal(bytes(16), "e" * 32))),
        0,
        (Confirmation.of(device(3), [1, 2]),),
    ),
)


@functools.cache
def sound() -> bytes:
    """Return the SQLite file of a checkpoint."""
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        for position, segment in enumerate(SEGMENTS, 1):
            state.apply(position, segment)
        state.write_copy(folder / "copy.sqlite")
        state.close()
        return (folder / "copy.sqlite").read_bytes()


def changed(folder: Path, *statements: str) -> bytes:
    """Return the checkpoint after SQL statements, of which those fail that SQLite refuses."""
    path = folder / "changed.sqlite"
    path.write_bytes(sound())
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        try:
            connection.execute(statement)
        except sqlite3.Error:
            pass
    connection.close()
    return path.read_bytes()


def check(folder: Path, body: bytes) -> bool:
    """Return whether a file is taken as a checkpoint; if so, check that all of it can be read."""
    path = folder / "check.sqlite"
    path.write_bytes(body)
    try:
        check_copy(path, 2, KEY)
    except DataError as error:
        assert KEY in str(error)
        return False
    (folder / "taken").mkdir(exist_ok=True)
    state = FolderState(folder / "taken" / "state.sqlite")
    try:
        state.replace(path)
        found = [state.entry_at(sequence) for sequence, _ in state.file_infos_after(0, -1)]
        for entry_found in found:
            assert state.entry(entry_found.file_info.name) == entry_found
            assert not state.wants(entry_found.file_info)
        totals = state.totals
        assert totals.files + totals.directories + totals.deleted == len(found)
        assert totals.bytes == sum(
            message.size
            for message in (one.file_info.message for one in found)
            if message.type == bep.FILE and not message.deleted
        )
        state.cursor(device(2))
        disputed = list(state.disputed())
        assert state.disputed_count == len(disputed)
        for row in disputed:
            assert state.has(row.whole_entry)
            assert all(state.row(name_key(one.file_info.name)) == row for one in state.versions_at(row.sequence))
        assert len(list(state.sources())) == len(found)
        missing = list(state.missing())
        assert state.missing_count == len(missing)
        assert all(state.is_missing(one.name_hash) for one in missing)
        state.apply(3, Segment(device(1), bytes(16), 0, state.sequence + 1, (entry(file("new")),), ()))
    finally:
        state.close()
    return True


def test_a_sound_one_is_taken(tmp_path: Path) -> None:
    assert check(tmp_path, sound())
    assert check(tmp_path, changed(tmp_path, "VACUUM"))


ENDLESS = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {', '.join('x' * 11)} FROM n"
EXCHANGED = """
UPDATE files SET file_info = (SELECT o.file_info FROM files AS o WHERE o.kind = 0 AND o.sequence != files.sequence)
WHERE kind = 0
"""
WRONG = [
    ["ALTER TABLE files RENAME TO f", f"CREATE VIEW files AS {ENDLESS}"],
    ["ALTER TABLE meta RENAME TO m", "CREATE VIEW meta AS SELECT * FROM m"],
    ["CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM files; END"],
    ["CREATE VIRTUAL TABLE v USING fts5(x)"],
    ["CREATE INDEX i ON files (size)"],
    ["CREATE TABLE more (x)"],
    ["ALTER TABLE files ADD COLUMN more"],
    ["ALTER TABLE files ADD COLUMN more AS (size + 1)"],
    ["PRAGMA user_version = 5"],
    ["PRAGMA user_version = 2"],
    ["UPDATE files SET name_hash = randomblob(16) WHERE sequence = 1"],
    [EXCHANGED],
    ["UPDATE files SET name_hash = hex(name_hash) WHERE sequence = 1"],
    ["UPDATE files SET size = size + 1 WHERE sequence = 1", "UPDATE meta SET value = value + 1 WHERE key = 'bytes'"],
    ["UPDATE files SET kind = 3 WHERE sequence = 1"],
    ["UPDATE files SET kind = 1 WHERE sequence = 1"],
    ["UPDATE files SET kind = 'file' WHERE sequence = 1"],
    ["UPDATE files SET version = x'ff' WHERE sequence = 1"],
    ["UPDATE files SET version = x'' WHERE sequence = 1"],
    ["UPDATE files SET version = substr(version, 2) WHERE sequence = 1"],
    ["UPDATE files SET version = x'0a040801100f'"],
    ["UPDATE files SET content_hash = '../../other' WHERE sequence = 1"],
    ["UPDATE files SET content_hash = x'00' WHERE sequence = 1"],
    ["UPDATE files SET content_hash = NULL WHERE sequence = 1"],
    ["UPDATE files SET object_size = 5 WHERE sequence = 1"],
    ["UPDATE files SET object_size = 9e300 WHERE sequence = 1"],
    ["UPDATE files SET part_size = -1 WHERE sequence = 1"],
    ["UPDATE files SET part_size = 100 WHERE sequence = 1"],
    ["UPDATE files SET part_crc32c = x'0000' WHERE sequence = 1"],
    ["UPDATE files SET part_crc32c = 'abcd' WHERE sequence = 1"],
    [
        "UPDATE files SET content_hash = '"
        + "0" * 32
        + "', object_size = 5000, part_size = 0, part_crc32c = x'00000000'"
    ],
    ["UPDATE files SET file_info = x'ff' WHERE sequence = 1"],
    ["UPDATE files SET file_info = 'text' WHERE sequence = 1"],
    ["UPDATE files SET sequence = 100 WHERE sequence = 1"],
    ["UPDATE files SET sequence = -100 WHERE sequence = 1"],
    ["DELETE FROM files WHERE sequence = 1"],
    ["DELETE FROM meta WHERE key = 'files'"],
    ["UPDATE meta SET value = value + 1 WHERE key = 'files'"],
    ["UPDATE meta SET value = 'many' WHERE key = 'sequence'"],
    ["UPDATE meta SET value = -1 WHERE key = 'time_ms'"],
    ["UPDATE meta SET value = 9e18 WHERE key = 'time_ms'"],
    ["UPDATE meta SET value = 0 WHERE key = 'sequence'"],
    ["INSERT INTO meta VALUES ('more', 1)"],
    [f"UPDATE meta SET value = {2**63 - 1} WHERE key = 'sequence'"],
    ["UPDATE cursors SET device_id = x'00' WHERE sequence = 5"],
    ["UPDATE cursors SET index_id = '-1'"],
    ["UPDATE cursors SET index_id = ' 1'"],
    ["UPDATE cursors SET index_id = '18446744073709551616'"],
    ["UPDATE cursors SET index_id = 'one'"],
    ["UPDATE cursors SET sequence = -1"],
    ["UPDATE cursors SET sequence = 'x'"],
    ["PRAGMA page_size = 512", "VACUUM"],
    ["UPDATE meta SET value = -1 WHERE key = 'index_id'"],
    ["UPDATE meta SET value = 2 WHERE key = 'missing'"],
    ["DELETE FROM missing"],
    ["UPDATE missing SET name_hash = zeroblob(16)"],
    ["UPDATE missing SET name = ''"],
    ["UPDATE missing SET version = x'ff'"],
    ["UPDATE missing SET version = 5"],
    ["UPDATE missing SET object_name = '../../other'"],
    ["INSERT INTO missing SELECT name_hash, 'x', version, content_hash FROM files WHERE sequence = 1"],
    ["UPDATE condemned SET name_hash = x'00'"],
    ["UPDATE condemned SET object_name = 'x'"],
    ["UPDATE devices SET device_id = x'00' WHERE number = 1"],
    ["UPDATE devices SET number = 9 WHERE number = 2"],
    ["DELETE FROM devices WHERE number = 2"],
    ["UPDATE files SET source = 6 WHERE sequence = 1"],
    ["UPDATE files SET source = 0 WHERE sequence = 1"],
    ["UPDATE files SET source = 'x' WHERE sequence = 1"],
    ["CREATE INDEX one ON missing (name)"],
    ["UPDATE devices SET index_id = 'x' WHERE number = 1"],
    ["UPDATE devices SET index_id = x'35' WHERE number = 1"],
    ["UPDATE devices SET index_id = '18446744073709551616' WHERE number = 1"],
    ["UPDATE devices SET void_until = 99"],
    ["UPDATE devices SET void_until = -1"],
    ["UPDATE devices SET void_until = 'x'"],
    ["UPDATE claims SET devices = 32"],
    ["UPDATE claims SET devices = -1"],
    ["UPDATE claims SET devices = 'x'"],
    ["UPDATE claims SET sequence = 55 WHERE sequence = 1"],
    ["UPDATE claims SET devices = devices | 2 WHERE sequence = 7"],
    ["UPDATE meta SET value = 2 WHERE key = 'disputed'"],
    ["UPDATE meta SET value = 0 WHERE key = 'disputed'"],
    ["DELETE FROM dissents"],
    ["DELETE FROM dissents WHERE number = 2"],
    ["UPDATE dissents SET sequence = 6"],
    ["UPDATE dissents SET sequence = 66"],
    ["UPDATE dissents SET sequence = 6 WHERE number = 1"],
    ["UPDATE dissents SET number = 0 WHERE number = 1"],
    ["UPDATE dissents SET number = 5 WHERE number = 2"],
    ["UPDATE dissents SET claimed = x''"],
    ["UPDATE dissents SET claimed = x'000000'"],
    ["UPDATE dissents SET claimed = x'00000000' WHERE number = 1"],
    ["UPDATE dissents SET claimed = x'00000009' WHERE number = 1"],
    ["UPDATE dissents SET claimed = x'00000001' WHERE number = 1"],
    ["UPDATE dissents SET claimed = x'00000005'"],
    ["UPDATE dissents SET claimed = x'0000000200000002' WHERE number = 1"],
    ["UPDATE dissents SET claimed = 'abcd' WHERE number = 1"],
    ["UPDATE dissents SET kind = 1 - kind WHERE number = 1"],
    ["UPDATE dissents SET kind = 3"],
    ["UPDATE dissents SET kind = 'x'"],
    ["UPDATE dissents SET source = 9"],
    ["UPDATE dissents SET source = 'x'"],
    ["UPDATE dissents SET version = x'0a040801100f'"],
    ["UPDATE dissents SET version = x'ff'"],
    ["UPDATE dissents SET version = 5"],
    ["UPDATE dissents SET content_hash = 'x' WHERE number = 1"],
    ["UPDATE dissents SET content_hash = NULL WHERE number = 1"],
    ["UPDATE dissents SET object_size = 5 WHERE number = 1"],
    ["UPDATE dissents SET object_size = 9e300 WHERE number = 1"],
    ["UPDATE dissents SET part_size = 1 WHERE number = 1"],
    ["UPDATE dissents SET part_crc32c = x'00' WHERE number = 1"],
    ["UPDATE dissents SET file_info = x'ff'"],
    ["UPDATE dissents SET file_info = (SELECT file_info FROM files WHERE sequence = 1) WHERE number = 1"],
    ["UPDATE dissents SET (file_info, version) = (SELECT file_info, version FROM files WHERE sequence = 7)"],
    ["UPDATE declined SET sequence = 55"],
    ["UPDATE declined SET device = 9"],
    ["UPDATE declined SET device = 0"],
    ["UPDATE declined SET number = 3"],
    ["UPDATE declined SET number = -1"],
    ["UPDATE declined SET time_ms = -1"],
    ["UPDATE declined SET time_ms = 9e17"],
    ["UPDATE declined SET times = 0"],
    ["UPDATE declined SET times = 4294967296"],
    ["UPDATE declined SET shown_again = 2"],
]


@pytest.mark.parametrize("statements", WRONG, ids=str)
def test_what_no_gateway_writes_is_refused(statements: list[str], tmp_path: Path) -> None:
    assert not check(tmp_path, changed(tmp_path, *statements))


@pytest.mark.parametrize("size", [0, 10, 100, 107, 108, 4096, 8192])
def test_a_file_that_is_cut_off(size: int, tmp_path: Path) -> None:
    assert not check(tmp_path, sound()[:size])


@pytest.mark.parametrize("at", [18, 19])
def test_a_file_that_sqlite_only_reads(at: int, tmp_path: Path) -> None:
    body = bytearray(sound())
    body[at] = 3
    assert not check(tmp_path, bytes(body))


def test_a_file_with_more_behind_it(tmp_path: Path) -> None:
    assert not check(tmp_path, sound() + bytes(4096))


def test_rows_that_an_index_hides(tmp_path: Path) -> None:
    """Two rows of one name: the schema forbids them, so they are written below it."""
    path = tmp_path / "changed.sqlite"
    path.write_bytes(sound())
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    own = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'files'").fetchone()[0]
    connection.execute("DELETE FROM sqlite_master WHERE name = 'sqlite_autoindex_files_1'")
    loose = own.replace("BLOB NOT NULL UNIQUE", "BLOB NOT NULL")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'files'", (loose,))
    connection.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "INSERT INTO files SELECT 99, name_hash, kind, size, source, version, content_hash, object_size, part_size,"
        " part_crc32c, file_info FROM files WHERE sequence = 1"
    )
    connection.execute("UPDATE meta SET value = 99 WHERE key = 'sequence'")
    connection.close()
    assert not check(tmp_path, path.read_bytes())


def test_a_block_outside_the_data(tmp_path: Path) -> None:
    wrong = bep.FileInfo.FromString(file("a").raw)
    wrong.blocks[0].size = 0
    raw = wrong.SerializeToString().hex()
    assert not check(tmp_path, changed(tmp_path, f"UPDATE files SET file_info = x'{raw}' WHERE sequence = 1"))


async def test_the_one_before_serves(tmp_path: Path) -> None:
    store = SimulatedStore()
    for position, segment in enumerate(SEGMENTS, 1):
        store.put(KEYS.segment(position), encode_segment(segment))
    body = changed(tmp_path, "UPDATE files SET name_hash = randomblob(16) WHERE sequence = 1")
    store.put(KEY, body + crc32c.crc32c(body).to_bytes(4, "big"))
    state, other = FolderState(tmp_path / "state.sqlite"), FolderState(tmp_path / "other.sqlite")
    await FolderLog(SimulatedBucket(store), KEYS, state, device(1)).load()
    with pytest.raises(DataError, match=KEY):
        await read_checkpoint(SimulatedBucket(store), KEYS, 2, other)
    for position, segment in enumerate(SEGMENTS, 1):
        other.apply(position, segment)
    assert contents(state) == contents(other)
    state.close()
    other.close()


COLUMNS = {
    "files": (
        "sequence", "name_hash", "kind", "size", "source", "version", "content_hash", "object_size", "part_size",
        "part_crc32c", "file_info",
    ),
    "meta": ("key", "value"),
    "cursors": ("device_id", "index_id", "sequence"),
    "devices": ("number", "device_id", "index_id", "void_until"),
    "claims": ("sequence", "devices"),
    "dissents": (
        "sequence", "number", "claimed", "source", "version", "content_hash", "object_size", "part_size",
        "part_crc32c", "file_info",
    ),
    "declined": ("sequence", "device", "number", "time_ms", "times", "shown_again"),
    "missing": ("name_hash", "name", "version", "object_name"),
    "condemned": ("name_hash", "object_name"),
}  # fmt: skip
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.integers(-2, 20).map(str),
    st.sampled_from(
        ["NULL", "1.5", "9e999", "''", "'a'", "randomblob(16)", "zeroblob(0)", "x'00000000'", "'position'"]
    ),
    st.binary(max_size=20).map(lambda value: f"x'{value.hex()}'"),
    st.sampled_from(COLUMNS["files"]),
    st.sampled_from(COLUMNS["files"]).map(lambda column: f"(SELECT o.{column} FROM files AS o WHERE o.sequence = 4)"),
    st.sampled_from(COLUMNS["files"]).map(lambda column: f"substr({column}, 2)"),
)
UPDATES = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns]).flatmap(
    lambda place: st.builds(
        lambda value, rowid: (
            f"UPDATE {place[0]} SET {place[1]} = {value} WHERE {place[1]} IN "
            f"(SELECT {place[1]} FROM {place[0]} LIMIT 1 OFFSET {rowid})"
        ),
        VALUES,
        st.integers(0, 6),
    )
)
DELETIONS = st.builds(
    "DELETE FROM {} WHERE {} > {}".format, st.just("files"), st.sampled_from(["sequence", "size"]), st.integers(0, 9000)
)
CHANGES = st.lists(UPDATES | DELETIONS, min_size=1, max_size=3)


@settings(**RUN)
@given(CHANGES)
def test_any_values_in_the_tables(statements: list[str]) -> None:
    with fast_directory() as folder:
        check(folder, changed(folder, *statements))


FILE_INFOS = st.builds(
    lambda kind, size, deleted, invalid, encrypted, blocks: bep.FileInfo(
        name=encrypted_name("a"),
        type=kind,
        size=size,
        deleted=deleted,
        invalid=invalid,
        encrypted=encrypted,
        blocks=[bep.BlockInfo(offset=offset, size=size) for offset, size in blocks],
        version=file("a").message.version,
    ),
    st.integers(0, 5),
    st.sampled_from([0, 1, 1999, 2000, -1, -(2**63), 2**63 - 1]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"", b"encrypted"]),
    st.lists(st.tuples(st.sampled_from([0, 1, 2000, -1]), st.sampled_from([0, 1, 2000, -1])), max_size=3),
)


@settings(**RUN)
@given(FILE_INFOS, st.booleans())
def test_what_is_taken_can_be_read_whatever_its_file_infos_say(info: bep.FileInfo, has_object: bool) -> None:
    """All columns say the same as the file info: only what is read later can be wrong."""
    kind = 2 if info.deleted else 0 if info.type == bep.FILE else 1
    raw, size = info.SerializeToString().hex(), 0 if kind else info.size
    no_object = "" if has_object else ", content_hash = NULL, object_size = NULL, part_size = NULL, part_crc32c = NULL"
    count = "UPDATE meta SET value = (SELECT {} FROM files {}) WHERE key = '{}'"
    statements = [
        f"UPDATE files SET kind = {kind}, size = {size}, file_info = x'{raw}'{no_object} WHERE sequence = 1",
        *(count.format("count(*)", f"WHERE kind = {k}", key) for k, key in enumerate(COUNTERS)),
        count.format("sum(size)", "", "bytes"),
    ]
    with fast_directory() as folder:
        check(folder, changed(folder, *statements))


def flip(draw: Callable[[st.SearchStrategy[Any]], Any], body: bytearray) -> None:
    at = draw(st.integers(0, 200) | st.integers(0, len(body) - 1))
    new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 4, bytes(4)]))
    body[at : at + len(new)] = new[: len(body) - at]


@settings(**RUN)
@given(st.data())
def test_damaged_bytes(data: st.DataObject) -> None:
    body = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 4))):
        flip(data.draw, body)
    with fast_directory() as folder:
        check(folder, bytes(body))


@pytest.mark.parametrize(
    ("statement", "taken"),
    [
        ("UPDATE files SET size = size", True),
        ("CREATE VIEW endless AS SELECT 1", False),
        ("UPDATE files SET size = -1 WHERE sequence = 1", False),
        ("UPDATE files SET size = size + 1 WHERE sequence = 1", False),
        ("UPDATE meta SET value = value + 1 WHERE key = 'files'", False),
        (EXCHANGED, True),
    ],
    ids=["sound", "view", "range", "sum", "total", "exchanged file infos"],
)
def test_a_gateway_leaves_the_comparison_with_file_infos_to_the_reading(
    tmp_path: Path, statement: str, taken: bool
) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(changed(tmp_path, statement))
    if not taken:
        with pytest.raises(DataError, match=KEY):
            check_copy(path, 2, KEY, entries=False)
        return
    check_copy(path, 2, KEY, entries=False)
    if statement is EXCHANGED:
        with pytest.raises(DataError, match=KEY):
            check_copy(path, 2, KEY)
        state = FolderState(path)
        with pytest.raises((StateDamaged, DataError)):
            state.entry(file("a").name)
        state.close()


def test_a_large_one_is_checked_in_a_thread(tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    for position, segment in enumerate(SEGMENTS, 1):
        state.apply(position, segment)
    sizes = (2000,) * 6000
    state.apply(3, Segment(device(1), bytes(16), 0, state.sequence + 1, (entry(file("big", sizes=sizes)),), ()))
    state.write_copy(tmp_path / "copy.sqlite")
    state.close()
    path = tmp_path / "copy.sqlite"
    assert path.stat().st_size > 1 << 18
    check_copy(path, 3, KEY)
    with pytest.raises(DataError, match="another position"):
        check_copy(path, 2, KEY)
    body = bytearray(path.read_bytes())
    at = body.index(name_key(file("big").name), 4096)
    body[at] ^= 1
    path.write_bytes(body)
    with pytest.raises(DataError, match=KEY):
        check_copy(path, 3, KEY)
