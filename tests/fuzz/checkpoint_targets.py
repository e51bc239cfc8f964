"""The reader of checkpoints.

An input is a list of changes to a sound checkpoint: pages are much larger than what is worth changing in them. Changes
of bytes come first, up to two bytes 0xff, then statements of SQL. Most inputs have statements only: they change rows of
one database in memory, which is rolled back after each check. One in 256 also goes the way of a file that was
downloaded, and has to come to the same end.
"""

from __future__ import annotations

import functools
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from tests.file_infos import device, entry, file
from tests.fuzz.index_targets import CLAIMED, CONFIRMATIONS, CURSORS, LARGE, REMOVALS, SOURCED
from tests.fuzz.mutations import Mutator
from tests.fuzz.targets import short
from tests.simulated import fast_directory
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import DataError
from untrusted_s3.index.checkpoint_check import HEADER_SIZE, check_copy, check_database, check_rows
from untrusted_s3.index.entry import Removal, Renewal
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

_POSITION = 2
_KEY = "folders/f/checkpoints/00000000000000000002"
_CHANGE = struct.Struct(">HB8s")
_FILE_SHARE = 256
_STEPS = 100_000  # of SQLite's virtual machine, after which it asks whether to go on
_MAX_INTERRUPTS = 20
_MAX_STATEMENTS = 6  # of an input
_MAX_VALUE = 1_000_000  # bytes
_MARK = b"\xff\xff"


def checkpoints(data: bytes) -> str:
    """Check a checkpoint to which the changes were made that the input lists. What is taken can be read whole."""
    binary, _, text = data.partition(_MARK)
    statements = [one for one in text.decode("utf-8", "replace").split(";") if one]
    outcome = _rows().outcome(statements) if len(binary) < _CHANGE.size else None
    by_file = zlib.crc32(data) % _FILE_SHARE == 0
    if outcome is None or by_file:
        body = _changed(binary, statements)
        whole = None if _needs_file(body) else _outcome_of(body)
        if whole is None or by_file:
            found = _outcome_by_file(body)
            assert whole in (None, found), (whole, found)
            whole = found
        assert outcome in (None, whole), (outcome, whole)
        outcome = whole
    return outcome


def _outcome_of(body: bytes) -> str:
    """Check a database in memory."""
    opened: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        opened.append(_loaded(body))
        return opened[0]

    try:
        check_database(body[:HEADER_SIZE], len(body), connect, _POSITION, _KEY)
    except DataError as error:
        return _reason(error)
    with_rows = _loaded(body)
    try:
        return _shape(with_rows)
    finally:
        with_rows.close()


def _outcome_by_file(body: bytes) -> str:
    with fast_directory() as folder:
        path = folder / "check.sqlite"
        path.write_bytes(body)
        try:
            check_copy(path, _POSITION, _KEY)
        except DataError as error:
            return _reason(error)
        return _read_whole(path, folder / "state.sqlite")


def _reason(error: DataError) -> str:
    assert _KEY in str(error)
    return short(str(error).removeprefix(_KEY))


def _needs_file(body: bytes) -> bool:
    """Return whether SQLite cannot read a database from memory: one whose header says that it has a WAL."""
    return body[18:20] != b"\1\1"


def _shape(connection: sqlite3.Connection) -> str:
    """Return what a checkpoint holds, for one that is taken."""
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    counts = [min(meta[key], 3) for key in ("files", "directories", "deleted", "missing", "disputed")]
    return f"taken {counts} {connection.execute(_SHAPE).fetchone()}"


_SHAPE = """
SELECT (SELECT min(count(*), 3) FROM cursors), (SELECT min(count(*), 2) FROM condemned),
    EXISTS (SELECT 1 FROM missing JOIN files USING (name_hash)), EXISTS (SELECT 1 FROM files WHERE source IS NULL),
    EXISTS (SELECT 1 FROM files WHERE part_size > 0), EXISTS (SELECT 1 FROM files WHERE content_hash IS NULL)
"""


class _Rows:
    """A sound checkpoint in memory, whose rows are changed, checked and put back."""

    def __init__(self) -> None:
        self._interrupts = 0
        self._open()

    def _open(self) -> None:
        self._refused, self._own = False, True
        self._connection = _loaded(_sound(), cached_statements=5000)
        self._connection.set_authorizer(self._authorize)
        self._connection.set_progress_handler(self._step, _STEPS)
        self._own = False

    def _step(self) -> bool:
        """Count the steps since the last check; SQLite counts those of a prepared statement over all of its runs."""
        self._interrupts += 1
        return self._interrupts > _MAX_INTERRUPTS

    def outcome(self, statements: Sequence[str]) -> str | None:
        """Return what a check says after these statements, or None where they do not only change rows."""
        connection = self._connection
        self._control(_BEGIN)
        self._refused, self._interrupts = False, 0
        try:
            for statement in statements:
                try:
                    connection.execute(statement)
                except (sqlite3.Error, sqlite3.Warning, ValueError):
                    pass
                if self._refused or not connection.in_transaction:
                    return None
            check_rows(connection, _POSITION, _KEY)
            return _shape(connection)
        except DataError as error:
            return _reason(error)
        finally:
            if self._refused or not connection.in_transaction:
                connection.close()
                self._open()
            else:
                self._control(_ROLLBACK)

    def _control(self, statement: str) -> None:
        self._own = True
        try:
            self._connection.execute(statement)
        finally:
            self._own = False

    def _authorize(self, action: int, table: str | None, *_: str | None) -> int:
        if self._own or (action in _ROW_ACTIONS and table not in _SCHEMA_TABLES):
            return sqlite3.SQLITE_OK
        self._refused = True
        return sqlite3.SQLITE_DENY


# With comments, so that no statement of an input is the same.
_BEGIN, _ROLLBACK = "BEGIN /* of all */", "ROLLBACK /* of all */"
_ROW_ACTIONS = frozenset(
    (
        *(sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE),
        *(sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE),
    )
)
_SCHEMA_TABLES = ("sqlite_master", "sqlite_temp_master", "sqlite_schema", "sqlite_temp_schema")


@functools.cache
def _rows() -> _Rows:
    return _Rows()


def _loaded(body: bytes, cached_statements: int = 128) -> sqlite3.Connection:
    """Return a database in memory. Raises sqlite3.Error."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=cached_statements)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.deserialize(body)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_whole(path: Path, own: Path) -> str:
    state = FolderState(own)
    try:
        state.replace(path)
        with sqlite3.connect(own) as connection:
            shape = _shape(connection)
        connection.close()
        found = [state.entry_at(sequence) for sequence, _ in state.file_infos_after(0, -1)]
        for one in found:
            assert state.entry(one.file_info.name) == one
        totals = state.totals
        assert totals.files + totals.directories + totals.deleted == len(found)
        assert len(list(state.sources())) == len(found)
        disputed = list(state.disputed())
        assert state.disputed_count == len(disputed)
        assert all(state.has(row.whole_entry) for row in disputed)
        missing = list(state.missing())
        assert state.missing_count == len(missing)
        assert all(state.is_missing(one.name_hash) for one in missing)
        assert all(state.condemned(one.name_hash) is not None for one in missing)
        assert totals.bytes == sum(one.file_info.message.size for one in found if one.file_info.has_data)
        back = [one.name_hash for one in missing]
        removals = (*REMOVALS, *(Removal(key) for key in back if key not in [one.name_hash for one in REMOVALS]))
        renewal = Renewal(1 + (state.index_id == 1), removals)
        state.apply(3, Segment(device(1), bytes(16), 0, state.sequence + 1, (entry(file("new")),), (), renewal))
    finally:
        state.close()
    return shape


def _changed(binary: bytes, statements: Sequence[str]) -> bytes:
    """Return the sound checkpoint with changes of bytes, and then by SQL."""
    changed = bytearray(_sound())
    for at in range(0, len(binary) - _CHANGE.size + 1, _CHANGE.size):
        place, size, new = _CHANGE.unpack_from(binary, at)
        start = place % len(changed)
        changed[start : start + size % 9] = new[: min(size % 9, len(changed) - start)]
    body = bytes(changed)
    if not statements:
        return body
    if not _needs_file(body):
        try:
            connection = _loaded(body)
        except sqlite3.Error:
            return body
        _execute(connection, statements)
        try:
            return connection.serialize()
        finally:
            connection.close()
    with fast_directory() as folder:
        path = folder / "changed.sqlite"
        path.write_bytes(body)
        connection = sqlite3.connect(path, isolation_level=None)
        _execute(connection, statements)
        connection.close()
        return path.read_bytes()


def _execute(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    connection.set_progress_handler(lambda: True, _MAX_INTERRUPTS * _STEPS)
    for statement in statements:
        try:
            connection.execute(statement)
        except (sqlite3.Error, sqlite3.Warning, ValueError):
            continue
    if connection.in_transaction:
        connection.execute("ROLLBACK")


@functools.cache
def _sound() -> bytes:
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        first = (*SOURCED[:4], entry(file("lost")))
        state.apply(1, Segment(device(1), bytes(16), 1_700_000_000_000, 1, first, ()))
        renewal = Renewal(77, (Removal(name_key(file("lost").name), "d" * 32),))
        later = (LARGE, CLAIMED[-1])
        segment = Segment(device(1), bytes(16), 1_700_000_001_000, 6, later, CURSORS, renewal, 0, CONFIRMATIONS)
        state.apply(2, segment)
        state.write_copy(folder / "copy.sqlite")
        state.close()
        return (folder / "copy.sqlite").read_bytes()


@functools.cache
def _used() -> list[int]:
    """Return where the sound checkpoint has other bytes than 0."""
    return [place for place, byte in enumerate(_sound()) if byte]


def checkpoint_seeds() -> list[bytes]:
    """Return no change, changes of bytes and changes by SQL."""
    return [
        b"",
        _CHANGE.pack(100, 4, b"\xfe" * 8),
        _CHANGE.pack(5000, 8, bytes(8)) * 2,
        *(
            _MARK + statements
            for statements in (
                b"UPDATE files SET size = size + 1 WHERE sequence = 1;UPDATE meta SET value = 7 WHERE key = 'bytes'",
                b"UPDATE files SET file_info = (SELECT o.file_info FROM files AS o WHERE o.sequence = 4)",
                b"DELETE FROM cursors;INSERT INTO cursors VALUES (x'00', '1', 5)",
                b"DELETE FROM missing;UPDATE meta SET value = 0 WHERE key = 'missing'",
                b"UPDATE devices SET number = 9 WHERE number = 1;UPDATE files SET source = 9 WHERE source = 1",
                b"INSERT INTO devices (number, device_id) SELECT max(number) + 1, zeroblob(32) FROM devices",
                b"DELETE FROM condemned;INSERT INTO condemned SELECT name_hash, content_hash FROM files WHERE size > 0",
                b"DELETE FROM dissents;DELETE FROM declined;" + _TOTALS,
                b"UPDATE dissents SET claimed = x'00000001' WHERE number = 1;UPDATE claims SET devices = 0",
                b"UPDATE devices SET void_until = 5,index_id = '1'",
                b"PRAGMA user_version = 2",
                b"CREATE INDEX another ON files (source)",
                b"DELETE FROM files;" + _TOTALS,
                b"DELETE FROM missing;" + _missing("a", 9) + b";" + _TOTALS,
                b"DELETE FROM missing;" + _missing("a", 0) + b";" + _TOTALS,
            )
        ),
    ]


def _missing(name: str, version: int) -> bytes:
    """Return the statement that lists a file as missing in a version."""
    vector = pb.Vector(counters=[pb.Counter(id=1, value=version)]).SerializeToString()
    found = file(name)
    values = f"x'{name_key(found.name).hex()}', '{found.name}', x'{vector.hex()}', '{'d' * 32}'"
    return f"INSERT OR REPLACE INTO missing VALUES ({values})".encode()


def damage_checkpoint(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change rows by statements; one in eight times bytes of pages. The totals are often put right afterwards."""
    binary, _, text = data.partition(_MARK)
    if mutator.below(8) == 0:
        return _damage_pages(mutator, binary, text)
    statements = [one for one in text.split(b";") if one]
    if mutator.below(2) and _TOTALS in statements:
        statements.remove(_TOTALS)
    for _ in range(1 + mutator.below(2)):
        _damage_statements(mutator, statements, others)
    while len(statements) > _MAX_STATEMENTS:
        del statements[mutator.below(len(statements))]
    if mutator.below(2) and _TOTALS not in statements:
        statements.append(_TOTALS)
    return _MARK + b";".join(statements)


def _damage_pages(mutator: Mutator, binary: bytes, text: bytes) -> bytes:
    if len(binary) > 4 * _CHANGE.size:
        binary = binary[_CHANGE.size :]
    match mutator.below(4):
        case 0:
            place = mutator.below(300)
        case 1:
            place = mutator.below(len(_sound()))
        case _:
            place = _used()[mutator.below(len(_used()))]
    change = _CHANGE.pack(place, mutator.below(9), mutator.token()[:8].ljust(8, b"\0"))
    return binary + change + (_MARK + text if text and mutator.below(2) else b"")


def _damage_statements(mutator: Mutator, statements: list[bytes], others: Sequence[bytes]) -> None:
    at = mutator.below(len(statements) + 1)
    match mutator.below(10):
        case 0 | 1 if statements:
            del statements[at % len(statements)]
        case 2 if statements:
            statements[at % len(statements)] = mutator.damaged(statements[at % len(statements)], others)
        case 3 | 4:
            statements.insert(at, _WHOLE[mutator.below(len(_WHOLE))])
        case 5 | 6:
            statements.insert(at, _row(mutator))
        case _:
            statements.insert(at, _one_value(mutator))


def _one_value(mutator: Mutator) -> bytes:
    value = _VALUES[mutator.below(len(_VALUES))]
    table, column = _COLUMNS[mutator.below(len(_COLUMNS))]
    where = f"WHERE {column} IN (SELECT {column} FROM {table} LIMIT 1 OFFSET {mutator.below(6)})"
    return f"UPDATE {table} SET {column} = {value} {where}".encode()


def _row(mutator: Mutator) -> bytes:
    """Return the statement that makes a row of a damaged file info: one that fits it, as far as it can be parsed."""
    sequence = 1 + mutator.below(6)
    raw = _FILE_INFOS[mutator.below(len(_FILE_INFOS))]
    if mutator.below(4):
        raw = mutator.protobuf(raw)
    try:
        message = pb.FileInfo.FromString(raw)
    except DecodeError:
        message = pb.FileInfo()
    kind = 2 if message.deleted else 0 if message.type == pb.FILE else 1
    size = message.size if kind == 0 else 0
    version = message.version.SerializeToString().hex()
    stored = f"'{'e' * 32}', {size + 200}, 0, x'00000000'" if kind == 0 else "NULL, NULL, NULL, NULL"
    key = name_key(message.name).hex()
    values = f"{sequence}, x'{key}', {kind}, {size}, NULL, x'{version}', {stored}, x'{raw.hex()}'"
    return f"INSERT OR REPLACE INTO files VALUES ({values})".encode()


_FILE_INFOS = (*(one.file_info.raw for one in SOURCED), LARGE.file_info.raw, file("h", version=7).raw)
_TOTALS = (
    b"UPDATE meta SET value = CASE key WHEN 'files' THEN (SELECT count(*) FROM files WHERE kind = 0)"
    b" WHEN 'directories' THEN (SELECT count(*) FROM files WHERE kind = 1)"
    b" WHEN 'deleted' THEN (SELECT count(*) FROM files WHERE kind = 2)"
    b" WHEN 'bytes' THEN (SELECT coalesce(sum(size), 0) FROM files)"
    b" WHEN 'disputed' THEN (SELECT count(DISTINCT sequence) FROM dissents)"
    b" WHEN 'missing' THEN (SELECT count(*) FROM missing) ELSE value END"
)
_WHOLE = (
    *(b"DELETE FROM %s" % name for name in (b"cursors", b"missing", b"condemned", b"devices")),
    *(b"DELETE FROM %s" % name for name in (b"claims", b"dissents", b"declined")),
    b"DELETE FROM dissents WHERE number = 2",
    b"UPDATE dissents SET file_info = (SELECT file_info FROM files WHERE files.sequence = dissents.sequence)",
    b"INSERT OR REPLACE INTO claims SELECT sequence, (1 << sequence) - 1 FROM files",
    *(b"DELETE FROM files WHERE sequence = %d" % sequence for sequence in (1, 2, 4, 6)),
    *(_missing(name, version) for name in ("a", "d", "z", "c") for version in (0, 1, 2**64 - 1)),
    *(b"UPDATE files SET source = %d WHERE sequence = %d" % pair for pair in ((1, 2), (2, 1), (5, 3), (0, 3))),
    b"UPDATE files SET source = NULL",
    b"INSERT INTO devices (number, device_id) SELECT coalesce(max(number), 0) + 1, x'%s' FROM devices" % (b"ab" * 32),
    b"INSERT INTO devices (number, device_id) SELECT coalesce(max(number), 0) + 2, zeroblob(32) FROM devices",
    b"INSERT OR REPLACE INTO condemned SELECT name_hash, content_hash FROM files WHERE content_hash IS NOT NULL",
    b"INSERT OR REPLACE INTO condemned SELECT zeroblob(16), object_name FROM missing",
    *(b"INSERT OR REPLACE INTO cursors VALUES (zeroblob(32), '%s', %s)" % pair for pair in ((b"0", b"0"),)),
    b"INSERT OR REPLACE INTO cursors VALUES (zeroblob(32), '18446744073709551615', 9223372036854775807)",
    b"INSERT OR REPLACE INTO cursors VALUES (zeroblob(32), '18446744073709551616', 1)",
    b"INSERT OR REPLACE INTO cursors VALUES (zeroblob(32), '01', 1)",
    b"UPDATE meta SET value = 4611686018427387904 WHERE key = 'sequence'",
    b"UPDATE meta SET value = 4611686018427387905 WHERE key = 'sequence'",
    b"UPDATE meta SET value = 253402300800000 WHERE key = 'time_ms'",
    b"UPDATE files SET sequence = 4611686018427387904 WHERE sequence = 6",
    b"UPDATE files SET part_size = object_size - 1, part_crc32c = zeroblob(8) WHERE content_hash IS NOT NULL",
    b"PRAGMA user_version = 2",
    b"CREATE TABLE another (value)",
)
_COLUMNS = (
    *(("files", name) for name in ("sequence", "name_hash", "kind", "size", "version", "content_hash", "object_size")),
    *(("files", name) for name in ("part_size", "part_crc32c", "file_info", "source")),
    *(("devices", name) for name in ("number", "device_id", "index_id", "void_until")),
    *(("claims", name) for name in ("sequence", "devices")),
    *(("dissents", name) for name in ("sequence", "number", "claimed", "source", "version", "content_hash")),
    *(("dissents", name) for name in ("object_size", "part_size", "part_crc32c", "file_info")),
    *(("declined", name) for name in ("sequence", "device", "number", "time_ms", "times", "shown_again")),
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
