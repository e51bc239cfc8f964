"""The check of a checkpoint's devices, claims, dissents and declined versions (index/checkpoint_check.py)."""

from __future__ import annotations

import sqlite3
import struct
from typing import Final

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.index.claim_tables import MAX_CLAIMING
from untrusted_s3.index.entry import MAX_OBJECT_SIZE, MAX_TIME_MS, Entry, kind_of, read_checksums, read_entry
from untrusted_s3.index.row import VersionKey

_MAX_UINT32: Final = 2**32 - 1
# In each table, a row of a sequence number that is not in use.
_STRAY = "SELECT sequence FROM {table} WHERE sequence NOT IN (SELECT sequence FROM files) LIMIT 1"
_WRONG_CLAIMS = """
SELECT sequence FROM claims WHERE typeof(devices) != 'integer' OR devices NOT BETWEEN 0 AND ? LIMIT 1
"""
_WRONG_DISSENTS = f"""
SELECT sequence FROM dissents WHERE NOT (
    typeof(sequence) = 'integer' AND typeof(number) = 'integer' AND number BETWEEN 1 AND {_MAX_UINT32}
    AND typeof(kind) = 'integer' AND kind BETWEEN 0 AND 2
    AND typeof(claimed) = 'blob' AND length(claimed) > 0 AND length(claimed) % 4 = 0
    AND typeof(version) = 'blob' AND typeof(file_info) = 'blob'
    AND (source IS NULL OR typeof(source) = 'integer' AND source BETWEEN 1 AND ?1)
    AND CASE typeof(content_hash)
        WHEN 'null' THEN object_size IS NULL AND part_size IS NULL AND part_crc32c IS NULL
        WHEN 'text' THEN
            typeof(object_size) = 'integer' AND object_size BETWEEN 1 AND {MAX_OBJECT_SIZE}
            AND typeof(part_size) = 'integer' AND part_size BETWEEN 0 AND {MAX_OBJECT_SIZE}
            AND typeof(part_crc32c) = 'blob'
            AND length(part_crc32c) = 4 * iif(part_size = 0, 1, (object_size + part_size - 1) / part_size)
        ELSE 0
    END
) LIMIT 1
"""  # noqa: S608
_WRONG_DECLINED = f"""
SELECT sequence FROM declined WHERE NOT (
    typeof(sequence) = 'integer' AND typeof(number) = 'integer'
    AND typeof(device) = 'integer' AND device BETWEEN 1 AND ?1
    AND typeof(time_ms) = 'integer' AND time_ms BETWEEN 0 AND {MAX_TIME_MS}
    AND typeof(times) = 'integer' AND times BETWEEN 1 AND {_MAX_UINT32}
    AND typeof(shown_again) = 'integer' AND shown_again BETWEEN 0 AND 1
    AND (number = 0 OR EXISTS (
        SELECT 1 FROM dissents WHERE dissents.sequence = declined.sequence AND dissents.number = declined.number
    ))
) LIMIT 1
"""  # noqa: S608


class WrongCheckpoint(Exception):
    """What is wrong with a checkpoint, for a message."""


def check_claims(connection: sqlite3.Connection, last: int, disputed: int, *, entries: bool) -> None:
    """Check the tables `devices`, `claims`, `dissents` and `declined`.

    `last` is the highest sequence number, and `disputed` the total of names with dissents. With `entries`, dissents are
    compared with their file infos. Raises WrongCheckpoint, sqlite3.Error or ValueError.
    """
    devices = _check_devices(connection, last)
    bits = (1 << min(devices, MAX_CLAIMING)) - 1
    for table, query, bound in (
        ("claims", _WRONG_CLAIMS, bits),
        ("dissents", _WRONG_DISSENTS, devices),
        ("declined", _WRONG_DECLINED, devices),
    ):
        wrong = connection.execute(query, (bound,)).fetchone()
        if wrong is not None:
            raise WrongCheckpoint(f"has values out of range in {table} at sequence {wrong[0]}")
        stray = connection.execute(_STRAY.format(table=table)).fetchone()
        if stray is not None:
            raise WrongCheckpoint(f"has {table} of sequence {stray[0]}, which it does not have")
    (count,) = connection.execute("SELECT count(DISTINCT sequence) FROM dissents").fetchone()
    if count != disputed:
        raise WrongCheckpoint("has a total of disputed names that its entries do not add up to")
    _check_claiming(connection, devices)
    if entries:
        try:
            _check_dissents(connection)
        except DecodeError as error:
            raise WrongCheckpoint(f"has a version of a dissent that cannot be parsed: {error}") from error


def _check_devices(connection: sqlite3.Connection, last: int) -> int:
    """Check the devices. Return how many there are."""
    count = 0
    for number, device_id, index_id, void_until in connection.execute(
        "SELECT number, device_id, index_id, void_until FROM devices ORDER BY number"
    ):
        count += 1
        if number != count or type(device_id) is not bytes or len(device_id) != 32:
            raise WrongCheckpoint("has a device that no gateway writes")
        if index_id is not None and (
            type(index_id) is not str or str(int(index_id)) != index_id or not 0 <= int(index_id) < 2**64
        ):
            raise WrongCheckpoint("has a device with an index id out of range")
        if type(void_until) is not int or not 0 <= void_until <= last:
            raise WrongCheckpoint("has a device whose claims are void up to a sequence number out of range")
    return count


def _check_claiming(connection: sqlite3.Connection, devices: int) -> None:
    """Check that no device claims two versions of a name."""
    before, claiming = 0, set[int]()
    rows = connection.execute(
        "SELECT sequence, claimed, claims.devices, files.source, void_until FROM dissents"
        " LEFT JOIN files USING (sequence) LEFT JOIN claims USING (sequence)"
        " LEFT JOIN devices ON devices.number = files.source ORDER BY sequence"
    )
    for sequence, claimed, bits, source, void_until in rows:
        if sequence != before:
            before, claiming = sequence, set()
            if bits is not None:
                claiming = {number for number in range(1, MAX_CLAIMING + 1) if bits & 1 << number - 1}
            elif source is not None and sequence > void_until:
                claiming = {source}
        for number in struct.unpack(f">{len(claimed) // 4}I", claimed):
            if number in claiming or not 1 <= number <= devices:
                raise WrongCheckpoint(f"has a device that claims two versions, or none, at sequence {sequence}")
            claiming.add(number)


def _check_dissents(connection: sqlite3.Connection) -> None:
    before, versions, name = 0, set[VersionKey](), ""
    rows = connection.execute(
        "SELECT sequence, dissents.version, dissents.kind, dissents.file_info, dissents.content_hash,"
        " dissents.object_size, dissents.part_size, dissents.part_crc32c, files.file_info, files.content_hash,"
        " files.object_size, files.part_size, files.part_crc32c"
        " FROM dissents JOIN files USING (sequence) ORDER BY sequence"
    )
    for sequence, version, kind, *columns in rows:
        if sequence != before:
            current = _entry(*columns[5:])
            before, versions, name = sequence, {VersionKey.of_entry(current)}, current.file_info.name
        dissent = _entry(*columns[:5])
        if dissent.file_info.name != name:
            raise WrongCheckpoint(f"has a dissent of {name!r} with another name")
        if pb.Vector.FromString(version) != dissent.file_info.message.version:
            raise WrongCheckpoint(f"has another version of a dissent of {name!r} than its file info")
        if kind != kind_of(dissent.file_info.message):
            raise WrongCheckpoint(f"has another kind of a dissent of {name!r} than its file info")
        key = VersionKey.of_entry(dissent)
        if key in versions:
            raise WrongCheckpoint(f"has a version of {name!r} twice")
        versions.add(key)


def _entry(
    raw: bytes, content_hash: str | None, object_size: int | None, part_size: int | None, crcs: bytes | None
) -> Entry:
    return read_entry(raw, content_hash or "", object_size or 0, part_size or 0, read_checksums(crcs))
