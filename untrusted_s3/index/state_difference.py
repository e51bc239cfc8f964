"""Whether two states of one position say the same, row by row (index/log_check.py)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_VERSION: Final = "kind, source, version, content_hash, object_size, part_size, part_crc32c, file_info"
# Of each table: what names a row for people, and all of its columns.
_TABLES: Final = (
    ("devices", "number", "number, device_id, index_id, void_until"),
    ("files", "sequence", f"sequence, name_hash, size, {_VERSION}"),
    ("claims", "sequence", "sequence, devices"),
    ("dissents", "sequence", f"sequence, number, claimed, {_VERSION}"),
    ("declined", "sequence", "sequence, device, number, time_ms, times, shown_again"),
    ("cursors", "sequence", "device_id, index_id, sequence"),
    ("missing", "name", "name_hash, name, version, object_name"),
    ("condemned", "object_name", "name_hash, object_name"),
)
_KEYS: Final = {
    "devices": ("number",),
    "files": ("sequence",),
    "claims": ("sequence",),
    "dissents": ("sequence", "number"),
    "declined": ("sequence", "device", "number"),
    "cursors": ("device_id",),
    "missing": ("name_hash",),
    "condemned": ("name_hash", "object_name"),
}
# What checkpoints of format version 1 do not have: numbers of devices, and with them all of claims.
_OF_DEVICES: Final = ("devices", "claims", "dissents", "declined")


def difference(ours: Path, other: Path) -> str | None:
    """Return what two states differ in, in a few words; None if they say the same.

    They may be open; what they have committed counts. Of a state that comes from format version 1, which has no append
    id, what that version does not have is left out. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(_read_only(ours), uri=True)) as connection:
        connection.execute("ATTACH ? AS other", (_read_only(other),))
        left = dict(connection.execute("SELECT key, value FROM main.meta"))
        right = dict(connection.execute("SELECT key, value FROM other.meta"))
        is_old = right.get("append_id") == 0 != left.get("append_id")
        for key, value in sorted(left.items()):
            if value != right.get(key) and not (is_old and key == "append_id"):
                return f"it states {key} {right.get(key)}, and the log {value}"
        for table, named, columns in _TABLES:
            if is_old and table in _OF_DEVICES:
                continue
            compared = [column for column in columns.split(", ") if not (is_old and column == "source")]
            found = _different_row(connection, table, named, compared)
            if found is not None:
                return found
    return None


def _different_row(connection: sqlite3.Connection, table: str, named: str, columns: list[str]) -> str | None:
    counts = [
        connection.execute(f"SELECT count(*) FROM {schema}.{table}").fetchone()[0]  # noqa: S608
        for schema in ("main", "other")
    ]
    if counts[0] != counts[1]:
        return f"it has {counts[1]:,} rows of {table}, and the log {counts[0]:,}"
    # As many rows, and each of ours is there: then all are the same.
    keys = " AND ".join(f"ours.{key} = theirs.{key}" for key in _KEYS[table])
    others = [column for column in columns if column not in _KEYS[table]]
    differs = " OR ".join([f"theirs.{_KEYS[table][0]} IS NULL", *(f"ours.{one} IS NOT theirs.{one}" for one in others)])
    row = connection.execute(
        f"SELECT ours.{named} FROM main.{table} AS ours LEFT JOIN other.{table} AS theirs ON {keys}"  # noqa: S608
        f" WHERE {differs} LIMIT 1"
    ).fetchone()
    return f"its {table} differ from those of the log, first at {named} {row[0]}" if row is not None else None


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"
