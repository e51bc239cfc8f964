"""The schema of a folder's state and of checkpoints (docs/format.md, "Checkpoints")."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE_VERSION: Final = 4
SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES
    ('position', 0), ('sequence', 0), ('time_ms', 0), ('append_id', 0), ('index_id', 0),
    ('files', 0), ('directories', 0), ('deleted', 0), ('bytes', 0), ('missing', 0), ('disputed', 0);
CREATE TABLE devices (
    number INTEGER PRIMARY KEY,
    device_id BLOB NOT NULL UNIQUE,
    index_id TEXT,
    void_until INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE files (
    sequence INTEGER PRIMARY KEY,
    name_hash BLOB NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    source INTEGER,
    version BLOB NOT NULL,
    content_hash TEXT,
    object_size INTEGER,
    part_size INTEGER,
    part_crc32c BLOB,
    file_info BLOB NOT NULL
);
CREATE TABLE claims (
    sequence INTEGER PRIMARY KEY,
    devices INTEGER NOT NULL
);
CREATE TABLE dissents (
    sequence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    claimed BLOB NOT NULL,
    kind INTEGER NOT NULL,
    source INTEGER,
    version BLOB NOT NULL,
    content_hash TEXT,
    object_size INTEGER,
    part_size INTEGER,
    part_crc32c BLOB,
    file_info BLOB NOT NULL,
    PRIMARY KEY (sequence, number)
);
CREATE TABLE declined (
    sequence INTEGER NOT NULL,
    device INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    times INTEGER NOT NULL,
    shown_again INTEGER NOT NULL,
    PRIMARY KEY (sequence, device, number)
) WITHOUT ROWID;
CREATE TABLE cursors (
    device_id BLOB PRIMARY KEY,
    index_id TEXT NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE missing (
    name_hash BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    version BLOB NOT NULL,
    object_name TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE condemned (
    name_hash BLOB NOT NULL,
    object_name TEXT NOT NULL,
    PRIMARY KEY (name_hash, object_name)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class FolderTotals:
    """What a folder holds.

    Attributes:
        files: Files that exist.
        directories: Directories that exist, and symlinks, which look like directories when encrypted.
        deleted: Deleted entries.
        bytes: Bytes of encrypted file data.
    """

    files: int
    directories: int
    deleted: int
    bytes: int


# In the order of FolderTotals; `bytes` is the sum of sizes.
COUNTERS: Final = ("files", "directories", "deleted")
META: Final = frozenset(
    ("position", "sequence", "time_ms", "append_id", "index_id", *COUNTERS, "bytes", "missing", "disputed"),
)

# Checkpoints of format version 1.
STATE_VERSION_1: Final = 2
SCHEMA_1: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    sequence INTEGER PRIMARY KEY,
    name_hash BLOB NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    version BLOB NOT NULL,
    content_hash TEXT,
    object_size INTEGER,
    part_size INTEGER,
    part_crc32c BLOB,
    file_info BLOB NOT NULL
);
CREATE TABLE cursors (
    device_id BLOB PRIMARY KEY,
    index_id TEXT NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
"""
META_1: Final = frozenset(("position", "sequence", "time_ms", *COUNTERS, "bytes"))

SCHEMAS: Final = {STATE_VERSION_1: (SCHEMA_1, META_1), STATE_VERSION: (SCHEMA, META)}
_COLUMNS_1: Final = (
    "sequence, name_hash, kind, size, version, content_hash, object_size, part_size, part_crc32c, file_info"
)


def upgrade(old: Path, new: Path) -> None:
    """Write what a checked state of format version 1 says as a state of this version. Raises sqlite3.Error."""
    connection = sqlite3.connect(new.absolute().as_uri(), isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -65536")
        connection.execute("ATTACH ? AS old", (f"{old.absolute().as_uri()}?mode=ro&immutable=1",))
        connection.executescript(
            f"""
            BEGIN;
            {SCHEMA};
            PRAGMA user_version = {STATE_VERSION:d};
            INSERT OR REPLACE INTO meta SELECT key, value FROM old.meta;
            INSERT INTO files ({_COLUMNS_1}) SELECT {_COLUMNS_1} FROM old.files ORDER BY sequence;
            INSERT INTO devices (device_id, index_id) SELECT device_id, index_id FROM old.cursors ORDER BY device_id;
            INSERT INTO cursors SELECT device_id, index_id, sequence FROM old.cursors;
            COMMIT;
            """  # noqa: S608
        )
    finally:
        connection.close()
