"""Readers of log segments and checkpoints."""

from __future__ import annotations

import functools
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import crc32c

from tests.file_infos import deleted, device, directory, entry, file
from tests.fuzz.mutations import Mutator
from tests.fuzz.targets import short
from tests.simulated import fast_directory
from untrusted_s3.errors import DataError
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.entry import Entry, PeerCursor, Removal, Renewal, StoredObject
from untrusted_s3.index.segment import EMPTY_SEGMENT, MAGIC, Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

_KEY = "folders/f/log/00000000000000000001"
_APPLIED_SHARE = 256
_ENTRIES = (entry(file("a")), entry(directory("b")), entry(deleted("c")), entry(file("d", sizes=(2000, 3000))))
_LARGE = Entry(file("f", sizes=(9000, 9000)), StoredObject("c" * 32 + "-1", 20_000, 8_000, (1, 2, 3)))
_CURSORS = (PeerCursor(device(2), 2**64 - 1, 5), PeerCursor(device(3), 1, 2))
_SOURCED = tuple(replace(found, source=device(number)) for number, found in enumerate((*_ENTRIES, _ENTRIES[0])))
_REMOVALS = (Removal(name_key(file("f").name), "c" * 32 + "-1"), Removal(name_key(file("b").name)))


def segments(data: bytes) -> str:
    """Read the message of a segment. One in 256 of those that are taken goes into a state and is read back."""
    body = MAGIC + data
    try:
        segment = decode_segment(body + struct.pack(">I", crc32c.crc32c(body)), _KEY)
    except DataError as error:
        assert _KEY in str(error)
        return short(str(error).partition(": ")[2])
    assert segment is not EMPTY_SEGMENT
    assert decode_segment(encode_segment(segment), _KEY) == segment
    if zlib.crc32(data) % _APPLIED_SHARE == 0:
        _apply(segment)
    removals = f" renewal {min(len(segment.renewal.removals), 4)}" if segment.renewal else ""
    return f"taken {min(len(segment.entries), 4)} {min(len(segment.cursors), 4)}{removals}"


def _apply(segment: Segment) -> None:
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        try:
            state.apply(1, segment)
        except DataError:
            return
        else:
            newest = {found.file_info.name: found for found in segment.entries}
            assert all(state.entry(name) == found for name, found in newest.items())
            assert state.totals.bytes >= 0
            assert state.index_id == (segment.renewal.index_id if segment.renewal else 0)
        finally:
            state.close()


@functools.cache
def segment_seeds() -> list[bytes]:
    """Return the messages of sound segments."""
    kinds = [(_ENTRIES[:1], ()), (_ENTRIES, _CURSORS), ((), _CURSORS[:1]), ((_LARGE, _ENTRIES[0]), ())]
    made = [Segment(device(1), bytes(16), 1_700_000_000_000, 1, entries, cursors) for entries, cursors in kinds]
    made += [
        Segment(device(1), bytes(16), 5, 1, entries, (), Renewal(index_id, removals))
        for entries, index_id, removals in (((), 1, ()), (_SOURCED, 2**63 - 1, _REMOVALS), ((), 5, _REMOVALS[:1]))
    ]
    return [encode_segment(segment)[len(MAGIC) : -4] for segment in made]


# A checkpoint's input is a list of changes: pages are much larger than what is worth changing in them.
_POSITION = 2
_CHANGE = struct.Struct(">HB8s")


def checkpoints(data: bytes) -> str:
    """Check a checkpoint to which the changes were made that the input lists. What is taken can be read whole."""
    with fast_directory() as folder:
        path = folder / "check.sqlite"
        path.write_bytes(_changed(folder, data))
        key = "folders/f/checkpoints/00000000000000000002"
        try:
            check_copy(path, _POSITION, key)
        except DataError as error:
            assert key in str(error)
            return short(str(error).removeprefix(key))
        _read_whole(path, folder / "state.sqlite")
    return "taken"


def _read_whole(path: Path, own: Path) -> None:
    state = FolderState(own)
    try:
        state.replace(path)
        found = [state.entry_at(sequence) for sequence, _ in state.file_infos_after(0, -1)]
        for one in found:
            assert state.entry(one.file_info.name) == one
        totals = state.totals
        assert totals.files + totals.directories + totals.deleted == len(found)
        assert len(list(state.sources())) == len(found)
        missing = list(state.missing())
        assert state.missing_count == len(missing)
        assert all(state.is_missing(one.name_hash) for one in missing)
        assert all(state.condemned(one.name_hash) is not None for one in missing)
        assert totals.bytes == sum(one.file_info.message.size for one in found if one.file_info.has_data)
        back = [one.name_hash for one in missing]
        removals = (*_REMOVALS, *(Removal(key) for key in back if key not in [one.name_hash for one in _REMOVALS]))
        renewal = Renewal(1 + (state.index_id == 1), removals)
        state.apply(3, Segment(device(1), bytes(16), 0, state.sequence + 1, (entry(file("new")),), (), renewal))
    finally:
        state.close()


def _changed(folder: Path, data: bytes) -> bytes:
    """Return the sound checkpoint with changes of bytes (up to the first 0xff), then of values by SQL."""
    binary, _, text = data.partition(b"\xff\xff")
    body = bytearray(_sound())
    for at in range(0, len(binary) - _CHANGE.size + 1, _CHANGE.size):
        place, size, new = _CHANGE.unpack_from(binary, at)
        start = place % len(body)
        body[start : start + size % 9] = new[: min(size % 9, len(body) - start)]
    if not text:
        return bytes(body)
    path = folder / "changed.sqlite"
    path.write_bytes(body)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.set_progress_handler(lambda: True, 1_000_000)
        for statement in text.decode("utf-8", "replace").split(";"):
            try:
                connection.execute(statement)
            except (sqlite3.Error, sqlite3.Warning, ValueError):
                continue
    finally:
        connection.close()
    return path.read_bytes()


@functools.cache
def _sound() -> bytes:
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        first = (*_SOURCED[:4], entry(file("lost")))
        state.apply(1, Segment(device(1), bytes(16), 1_700_000_000_000, 1, first, ()))
        renewal = Renewal(77, (Removal(name_key(file("lost").name), "d" * 32),))
        state.apply(2, Segment(device(1), bytes(16), 1_700_000_001_000, 6, (_LARGE,), _CURSORS, renewal))
        state.write_copy(folder / "copy.sqlite")
        state.close()
        return (folder / "copy.sqlite").read_bytes()


def checkpoint_seeds() -> list[bytes]:
    """Return no change, changes of bytes and changes by SQL."""
    return [
        b"",
        _CHANGE.pack(100, 4, b"\xfe" * 8),
        _CHANGE.pack(5000, 8, bytes(8)) * 2,
        b"\xff\xffUPDATE files SET size = size + 1 WHERE sequence = 1;UPDATE meta SET value = 7 WHERE key = 'bytes'",
        b"\xff\xffUPDATE files SET file_info = (SELECT o.file_info FROM files AS o WHERE o.sequence = 4)",
        b"\xff\xffDELETE FROM cursors;INSERT INTO cursors VALUES (x'00', '1', 5)",
        b"\xff\xffDELETE FROM missing;UPDATE meta SET value = 0 WHERE key = 'missing'",
        b"\xff\xffUPDATE devices SET number = 9 WHERE number = 1;UPDATE files SET source = 9 WHERE source = 1",
    ]


def damage_checkpoint(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Add a change of bytes, or change or add a statement."""
    binary, mark, text = data.partition(b"\xff\xff")
    if mutator.below(2) == 0:
        place = mutator.below(300) if mutator.below(2) else mutator.below(65_536)
        return binary + _CHANGE.pack(place, mutator.below(9), mutator.token()[:8].ljust(8, b"\0")) + mark + text
    statements = text.split(b";") if text else []
    value = _VALUES[mutator.below(len(_VALUES))]
    table, column = _COLUMNS[mutator.below(len(_COLUMNS))]
    match mutator.below(4):
        case 0 if statements:
            del statements[mutator.below(len(statements))]
        case 1 if statements:
            at = mutator.below(len(statements))
            statements[at] = mutator.damaged(statements[at], others)
        case _:
            row = mutator.below(6)
            where = f"WHERE {column} IN (SELECT {column} FROM {table} LIMIT 1 OFFSET {row})"
            statements.append(f"UPDATE {table} SET {column} = {value} {where}".encode())
    return binary + b"\xff\xff" + b";".join(statements)


_COLUMNS = (
    *(("files", name) for name in ("sequence", "name_hash", "kind", "size", "version", "content_hash", "object_size")),
    *(("files", name) for name in ("part_size", "part_crc32c", "file_info", "source")),
    *(("devices", name) for name in ("number", "device_id")),
    *(("missing", name) for name in ("name_hash", "name", "version", "object_name")),
    *(("condemned", name) for name in ("name_hash", "object_name")),
    *(("meta", name) for name in ("key", "value")),
    *(("cursors", name) for name in ("device_id", "index_id", "sequence")),
)
_VALUES = (
    *("NULL", "0", "1", "-1", "2", "3", "5", "9223372036854775807", "1.5", "9e999", "''", "'a'", "x''", "x'00000000'"),
    *("zeroblob(16)", "zeroblob(32)", "'position'", "size", "sequence", "kind", "name_hash", "file_info", "version"),
    *("(SELECT o.file_info FROM files AS o WHERE o.sequence = 4)", "substr(file_info, 2)", "substr(version, 2)"),
    *("(SELECT o.version FROM files AS o WHERE o.sequence = 2)", "size + 1", "value + 1", "hex(name_hash)", "'-1'"),
)
