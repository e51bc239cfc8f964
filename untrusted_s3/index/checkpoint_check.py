"""The check of a checkpoint's SQLite file. Anybody who can write to the bucket can write one.

Nothing of the file is used before it was checked: that its schema is exactly the one that this program makes, that
SQLite finds it sound, and that all rows say what segments could have said. The work is bounded by the file's size.

To compare each row with its file info takes 20 seconds of CPU for a million entries. The key holder and a check of the
log do that. A gateway leaves it out when it starts: it compares an entry when it reads it (index/state.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.errors import DataError
from untrusted_s3.index.checkpoint_claims import WrongCheckpoint, check_claims
from untrusted_s3.index.entry import MAX_OBJECT_SIZE, MAX_SEQUENCE, MAX_TIME_MS, check_blocks, is_clean_path
from untrusted_s3.index.schema import COUNTERS, SCHEMAS, STATE_VERSION, STATE_VERSION_1
from untrusted_s3.store.layout import NAME_HASH_SIZE, is_object_name, name_key

_MAGIC: Final = b"SQLite format 3\0"
HEADER_SIZE: Final = 108
_MIN_PAGE_SIZE: Final = 4096
# In bytes. What is not larger is checked in a moment, without a thread.
_SMALL: Final = 1 << 18
_LEAF: Final = 0x0D
_MAX_SCHEMA_CELLS: Final = 16
_UTF8: Final = 1
# Of SQLite's virtual machine. A sound file needs fewer than one a byte.
_STEPS_AT_ONCE: Final = 100_000
_STEPS: Final = 10_000_000
_STEPS_PER_BYTE: Final = 8
# The first row, if any, with a value that no entry has (index/entry.py, check_object).
_WRONG_ROWS: Final = f"""
SELECT sequence FROM files WHERE NOT (
    typeof(name_hash) = 'blob' AND length(name_hash) = 16 AND typeof(version) = 'blob' AND typeof(file_info) = 'blob'
    AND typeof(kind) = 'integer' AND kind BETWEEN 0 AND 2 AND typeof(size) = 'integer' AND size >= 0
    AND CASE typeof(content_hash)
        WHEN 'null' THEN object_size IS NULL AND part_size IS NULL AND part_crc32c IS NULL
        WHEN 'text' THEN
            kind = 0 AND typeof(object_size) = 'integer' AND object_size BETWEEN size + 1 AND {MAX_OBJECT_SIZE}
            AND typeof(part_size) = 'integer' AND part_size BETWEEN 0 AND {MAX_OBJECT_SIZE}
            AND typeof(part_crc32c) = 'blob'
            AND length(part_crc32c) = 4 * iif(part_size = 0, 1, (object_size + part_size - 1) / part_size)
        ELSE 0
    END
) LIMIT 1
"""  # noqa: S608
_WRONG_SOURCES: Final = """
SELECT sequence FROM files
WHERE source IS NOT NULL AND (typeof(source) != 'integer' OR source NOT BETWEEN 1 AND (SELECT count(*) FROM devices))
LIMIT 1
"""
# Of positions and sequence numbers; those of segments follow and have to stay below 2**63.
_MAX_NUMBER: Final = 2**62
_META = frozenset(("position", "sequence", "time_ms", *COUNTERS, "bytes"))


def check_copy(path: Path, position: int, key: str, *, entries: bool = True) -> int:
    """Check that the file at `path`, whose checksum is right, is a sound state of this position. Return its version.

    Without `entries`, rows and indexes are not compared with each other, nor rows with their file infos. Raises
    DataError, which names `key`.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return check_database(
        header, path.stat().st_size, lambda: sqlite3.connect(uri, uri=True), position, key, entries=entries
    )


def check_database(
    header: bytes,
    size: int,
    connect: Callable[[], sqlite3.Connection],
    position: int,
    key: str,
    *,
    entries: bool = True,
) -> int:
    """Do what `check_copy` does with a database of `size` bytes that begins with `header` and that `connect` opens."""
    with _naming(key):
        _check_header(header, size)
        pragma = "integrity_check" if entries else "quick_check"
        if size <= _SMALL:
            with _opened(connect, size) as connection:
                version = _check_schema(connection)
                _check_soundness(connection, pragma)
                _check_contents(connection, version, position, entries)
            return version
        with _opened(connect, size) as connection:
            version = _check_schema(connection)
        # SQLite's own check takes about as long as ours, and no lock of the interpreter.
        with ThreadPoolExecutor(1) as other:
            soundness = other.submit(_check_soundness_apart, connect, size, pragma)
            try:
                with _opened(connect, size) as connection:
                    _check_contents(connection, version, position, entries)
            finally:
                soundness.result()
        return version


def check_rows(connection: sqlite3.Connection, position: int, key: str) -> None:
    """Check the rows of a sound database that has the present schema, as `check_copy` does. Raises DataError."""
    with _naming(key):
        _check_contents(connection, STATE_VERSION, position, entries=True)


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    try:
        yield
    except WrongCheckpoint as error:
        raise DataError(f"{key} {error}") from error
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{key} is not a checkpoint: {error}") from error


def _check_header(header: bytes, size: int) -> None:
    """Check page 1 ("Database File Format", sqlite.org/fileformat2.html) before SQLite reads it."""
    if len(header) < HEADER_SIZE or not header.startswith(_MAGIC):
        raise WrongCheckpoint("is not a checkpoint: it is no SQLite file")
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(header[28:32], "big")
    if page_size < _MIN_PAGE_SIZE or page_size & (page_size - 1) or pages * page_size != size:
        raise WrongCheckpoint(f"is not a checkpoint: it does not consist of {pages} pages of {page_size} bytes")
    # Format versions that SQLite also writes, and no table for moving pages.
    if header[18:20] not in (b"\1\1", b"\2\2") or any(header[52:56]):
        raise WrongCheckpoint("is not a checkpoint: it has another file format")
    # So the schema has no page but the first.
    if header[100] != _LEAF or int.from_bytes(header[103:105], "big") > _MAX_SCHEMA_CELLS:
        raise WrongCheckpoint("is not a checkpoint: it has another schema")


@contextlib.contextmanager
def _opened(connect: Callable[[], sqlite3.Connection], size: int) -> Iterator[sqlite3.Connection]:
    connection = connect()
    try:
        _bound(connection, size)
        yield connection
    finally:
        connection.close()


def _check_soundness_apart(connect: Callable[[], sqlite3.Connection], size: int, pragma: str) -> None:
    with _opened(connect, size) as connection:
        _check_soundness(connection, pragma)


def _check_soundness(connection: sqlite3.Connection, pragma: str) -> None:
    faults = connection.execute(f"PRAGMA {pragma}(1)").fetchone()[0]
    if faults != "ok":
        raise WrongCheckpoint(f"is not a checkpoint: {str(faults)[:200]}")


def _bound(connection: sqlite3.Connection, size: int) -> None:
    left = _STEPS + _STEPS_PER_BYTE * size

    def step() -> bool:
        nonlocal left
        left -= _STEPS_AT_ONCE
        return left < 0

    connection.set_progress_handler(step, _STEPS_AT_ONCE)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA query_only = ON")


def _check_schema(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in _OWN_SCHEMAS:
        raise WrongCheckpoint(f"has state version {version}, this program reads up to {STATE_VERSION}")
    if _schema(connection) != _OWN_SCHEMAS[version] or connection.execute("PRAGMA encoding").fetchone() != ("UTF-8",):
        raise WrongCheckpoint("is not a checkpoint: it has another schema")
    return version


def _schema(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY name")
    return [tuple(" ".join(str(value).split()) for value in row) for row in rows.fetchall()]


def _made_schema(statements: str) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(statements)
        return _schema(connection)
    finally:
        connection.close()


_OWN_SCHEMAS: Final = {version: _made_schema(statements) for version, (statements, _) in SCHEMAS.items()}


def _check_contents(connection: sqlite3.Connection, version: int, position: int, entries: bool) -> None:
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    _, names = SCHEMAS[version]
    if meta.keys() != names or not all(type(value) is int and 0 <= value <= MAX_SEQUENCE for value in meta.values()):
        raise WrongCheckpoint("is not a checkpoint: its totals are not complete")
    if meta["position"] != position:
        raise WrongCheckpoint("holds the state of another position")
    if max(meta["position"], meta["sequence"]) > _MAX_NUMBER:
        raise WrongCheckpoint("has numbers out of range, which leave none for what follows")
    if meta["time_ms"] > MAX_TIME_MS:
        raise WrongCheckpoint(f"has a time out of range: {meta['time_ms']} ms")
    _check_columns(connection, meta["sequence"])
    if entries:
        _check_file_infos(connection)
    if _totals(connection) != [meta[name] for name in (*COUNTERS, "bytes")]:
        raise WrongCheckpoint("has totals that its entries do not add up to")
    _check_cursors(connection)
    if version != STATE_VERSION_1:
        check_claims(connection, meta["sequence"], meta["disputed"], entries=entries)
        _check_sources(connection)
        _check_missing(connection, meta["missing"])


def _check_columns(connection: sqlite3.Connection, last: int) -> None:
    """Check types and ranges of all rows' values, in SQLite alone."""
    first, highest = connection.execute("SELECT min(sequence), max(sequence) FROM files").fetchone()
    if first is not None and not 1 <= first <= highest <= last:
        raise WrongCheckpoint(f"has the sequence numbers {first} to {highest}, where 1 to {last} are possible")
    wrong = connection.execute(_WRONG_ROWS).fetchone()
    if wrong is not None:
        raise WrongCheckpoint(f"has values out of range at sequence {wrong[0]}")


def _totals(connection: sqlite3.Connection) -> list[int]:
    """Return the numbers of rows by kind, and the sum of their sizes."""
    counts, total = [0] * len(COUNTERS), 0
    for kind, count, size in connection.execute("SELECT kind, count(*), sum(size) FROM files GROUP BY kind"):
        counts[kind] = count
        total += size
    return [*counts, total]


def _check_file_infos(connection: sqlite3.Connection) -> None:
    """Compare every row with its file info: what passes can be read (index/entry.py, read_entry).

    The loop calls as little as possible, for there may be millions of rows.
    """
    parse, sha256, kinds = pb.FileInfo.FromString, hashlib.sha256, (pb.FILE, pb.DIRECTORY)
    rows = connection.execute("SELECT name_hash, kind, size, version, content_hash, file_info FROM files")
    try:
        for key, kind, size, version, content_hash, raw in rows:
            message = parse(raw)
            name = message.name
            if sha256(name.encode()).digest()[:16] != key:
                raise WrongCheckpoint(f"has {name!r} under the hash of another name")
            if not message.encrypted or not is_clean_path(name):
                raise WrongCheckpoint(f"has a file info of {name!r} that no gateway takes")
            if message.type not in kinds or message.size < 0:
                raise WrongCheckpoint(
                    f"has type {message.type} or a size of {message.size} for {name!r}, which no entry has"
                )
            expected = 2 if message.deleted else 0 if message.type == pb.FILE else 1
            if kind == 0 and message.blocks and not message.invalid:
                check_blocks(message)
            if kind != expected or size != (0 if kind else message.size):
                raise WrongCheckpoint(f"has another kind or size for {name!r} than its file info")
            if version != message.version.SerializeToString() and pb.Vector.FromString(version) != message.version:
                raise WrongCheckpoint(f"has another version of {name!r} than its file info")
            if content_hash is not None and (message.invalid or not is_object_name(content_hash)):
                raise WrongCheckpoint(f"has an object for {name!r} with a name that no object has, or none can have")
    except DecodeError as error:
        raise WrongCheckpoint(f"has a file info that cannot be parsed: {error}") from error


def _check_cursors(connection: sqlite3.Connection) -> None:
    for device_id, index_id, sequence in connection.execute("SELECT device_id, index_id, sequence FROM cursors"):
        if type(device_id) is not bytes or len(device_id) != 32:
            raise WrongCheckpoint("has a cursor of something that is no device")
        if type(index_id) is not str or str(int(index_id)) != index_id or not 0 <= int(index_id) < 2**64:
            raise WrongCheckpoint("has a cursor with an index id out of range")
        if type(sequence) is not int or not 0 <= sequence <= MAX_SEQUENCE:
            raise WrongCheckpoint("has a cursor with a sequence number out of range")


def _check_sources(connection: sqlite3.Connection) -> None:
    wrong = connection.execute(_WRONG_SOURCES).fetchone()
    if wrong is not None:
        raise WrongCheckpoint(f"has a source that is no device at sequence {wrong[0]}")


def _check_missing(connection: sqlite3.Connection, count: int) -> None:
    found = 0
    for key, name, version, object_name in connection.execute(
        "SELECT name_hash, name, version, object_name FROM missing"
    ):
        found += 1
        if type(name) is not str or not is_clean_path(name) or name_key(name) != key:
            raise WrongCheckpoint("has a missing file under the hash of another name")
        if type(version) is not bytes:
            raise WrongCheckpoint(f"has no version of the missing {name!r}")
        try:
            pb.Vector.FromString(version)
        except DecodeError as error:
            raise WrongCheckpoint(f"has no version of the missing {name!r}") from error
        if type(object_name) is not str or not is_object_name(object_name):
            raise WrongCheckpoint(f"has an object for the missing {name!r} with a name that no object has")
    if found != count:
        raise WrongCheckpoint("has a total of missing files that its entries do not add up to")
    for missing, current in connection.execute(
        "SELECT missing.version, files.version FROM missing JOIN files USING (name_hash)"
    ):
        try:
            older = type(current) is bytes and is_newer(pb.Vector.FromString(missing), pb.Vector.FromString(current))
        except DecodeError:
            older = False
        if not older:
            raise WrongCheckpoint("has a file and lists it as missing")
    for key, object_name in connection.execute("SELECT name_hash, object_name FROM condemned"):
        if type(key) is not bytes or len(key) != NAME_HASH_SIZE:
            raise WrongCheckpoint("has a damaged object of something that is no name")
        if type(object_name) is not str or not is_object_name(object_name):
            raise WrongCheckpoint("has a damaged object with a name that no object has")
