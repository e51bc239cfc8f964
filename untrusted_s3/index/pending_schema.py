"""The schema of the local file of announced entries (index/pending.py)."""

from __future__ import annotations

from typing import Final

PENDING_VERSION: Final = 6
PENDING_SCHEMA: Final = """
CREATE TABLE folder (index_id INTEGER NOT NULL);
INSERT INTO folder VALUES (0);
CREATE TABLE received (
    device_id BLOB PRIMARY KEY,
    index_id TEXT NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE refused (
    device_id BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE noted (
    device_id BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE held (
    device_id BLOB PRIMARY KEY,
    bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pending (
    device_id BLOB NOT NULL,
    name_hash BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    version BLOB NOT NULL,
    content_hash TEXT,
    size INTEGER NOT NULL,
    held INTEGER NOT NULL,
    file_info BLOB NOT NULL,
    PRIMARY KEY (device_id, name_hash)
);
CREATE INDEX pending_by_sequence ON pending (device_id, sequence, name_hash);
CREATE INDEX pending_by_name ON pending (name_hash, device_id, sequence, size, held);
"""
