"""A folder's state: what the log says up to a position, kept in SQLite.

The file is a cache and may be lost at any time; the log in the bucket is authoritative. Its schema is also the format
of checkpoints (docs/format.md, "Checkpoints").
"""

from __future__ import annotations

import sqlite3
import struct
from array import array
from collections.abc import Callable, Generator, Iterator, MutableSequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from untrusted_s3.accounts import Account, ByteCache
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.errors import DataError, EntryMisplaced, LogWentBack, StateDamaged, StateFolderUnusable
from untrusted_s3.index.database import is_damage, open_database, remove_database
from untrusted_s3.index.entry import ENTRY_COLUMNS, Entry, NamedObject, Removal, Renewal, read_row
from untrusted_s3.index.missing_files import MissingFile, MissingFiles
from untrusted_s3.index.schema import COUNTERS, META, SCHEMA, STATE_VERSION
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.store.layout import name_key
from untrusted_s3.units import MIB

# Within one index a cursor never moves back: another gateway may have handled less of it.
_SET_CURSOR = """
INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET
    index_id = excluded.index_id,
    sequence = iif(index_id = excluded.index_id, max(sequence, excluded.sequence), excluded.sequence)
"""
# Bytes of parsed entries that are kept where no account is given.
_PARSED_ENTRIES = 4 * MIB
# More than any store holds, and what SQLite can keep.
MAX_BYTES = 2**62
# Devices whose numbers are in memory.
_CACHED_DEVICES = 1000
# Rows that are in memory while all are gone through.
_ROWS_AT_ONCE = 1000
# Larger parsed entries are not kept: index/block_table.py has their blocks.
_LARGE_ENTRY = 4 * MIB
_KIND_FILE, _KIND_DIRECTORY, _KIND_DELETED = range(3)


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


class FolderState:
    """The state of one folder after the log segment at `position`."""

    def __init__(
        self,
        path: Path,
        on_damage: Callable[[], None] = lambda: None,
        parsed: Account | None = None,
    ) -> None:
        """Open the state, or make an empty one at position 0. Raises StateFolderUnusable.

        `parsed` bounds the memory for parsed entries that are kept; very large ones are not. All methods raise
        StateDamaged, after a call of `on_damage`, when the file turns out to be damaged.
        """
        self.path = path
        self._on_damage = on_damage
        # By sequence numbers, which are never used again. Peers ask for one block of a file after the other.
        account = parsed if parsed is not None else Account(_PARSED_ENTRIES)
        self._parsed: ByteCache[int, Entry] = ByteCache(account, path)
        try:
            self._open()
        except BaseException:
            self._parsed.close()
            raise

    def _open(self) -> None:
        self._connection = open_database(self.path, SCHEMA, STATE_VERSION)
        self._connection.on_damage = self._on_damage
        meta = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        if meta.keys() != META or not all(type(value) is int and value >= 0 for value in meta.values()):
            raise self._connection.damaged("the table meta")
        self._meta: dict[str, int] = meta
        self._missing = MissingFiles(self._connection)
        self._devices: dict[bytes, int] = {}  # the numbers of some devices
        self._parsed.clear()
        self._opened = object()  # what was kept of another file is not found any more

    def replace(self, path: Path) -> None:
        """Replace this state by the file at `path`, which `write_copy` of another state has made."""
        self._connection.close()
        remove_database(self.path)
        path.replace(self.path)
        self._open_again()

    def clear(self) -> None:
        """Make the state empty: that of position 0."""
        self._connection.close()
        remove_database(self.path)
        self._open_again()

    def _open_again(self) -> None:
        try:
            self._open()
        except StateFolderUnusable:
            self._on_damage()  # without a file, nothing can be done here any more
            raise

    def close(self) -> None:
        """Close the file."""
        self._parsed.close()
        self._connection.close()

    @property
    def position(self) -> int:
        """The position of the last segment applied; 0 for none."""
        return self._meta["position"]

    @property
    def sequence(self) -> int:
        """The highest sequence number announced by any gateway of this store."""
        return self._meta["sequence"]

    @property
    def time_ms(self) -> int:
        """When the last segment applied was written, by the store's clock, in milliseconds since 1970 UTC."""
        return self._meta["time_ms"]

    @property
    def append_id(self) -> int:
        """The first 63 bits of the append id of the last segment applied; 0 where they are not known."""
        return self._meta["append_id"]

    @property
    def index_id(self) -> int:
        """The id of the folder's index since the last renewal. 0 for none yet: then the one of its record holds."""
        return self._meta["index_id"]

    @property
    def missing_count(self) -> int:
        """The number of files in `missing`."""
        return self._meta["missing"]

    @property
    def file_size(self) -> int:
        """The size of the SQLite file in bytes, which is about that of a checkpoint."""
        pages, page_size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        return int(pages * page_size)

    @property
    def totals(self) -> FolderTotals:
        """What the folder holds; kept up to date, not counted."""
        return FolderTotals(*(self._meta[key] for key in (*COUNTERS, "bytes")))

    def skip(self, position: int) -> None:
        """Note that the log goes on after a position, up to which segments may be missing."""
        meta = self._meta | {"position": position, "append_id": 0}
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("UPDATE meta SET value = ?2 WHERE key = ?1", meta.items())
        self._meta = meta

    def apply(self, position: int, segment: Segment, *, follows: bool = True) -> None:
        """Apply the segment at the next position: first its renewal, then its entries.

        An entry replaces what the folder has under its name, newer or not. Without `follows`, segments before it
        may be missing. Raises LogWentBack where the segment is of another history than the last one applied, and
        DataError where position or sequence numbers do not follow, or a renewal does not change the index id.
        """
        if segment is EMPTY_SEGMENT:
            segment = replace(segment, first_sequence=self.sequence + 1, time_ms=self.time_ms)
        if not follows:
            fits = position > self.position and segment.first_sequence > self.sequence
        else:
            if segment.previous and self.append_id and segment.previous != self.append_id:
                raise LogWentBack(f"log segment {position} does not continue the segment {self.position} known here")
            fits = position == self.position + 1 and segment.first_sequence == self.sequence + 1
        if not fits:
            raise DataError(
                f"log segment {position} begins at sequence {segment.first_sequence}, "
                f"but segment {self.position} ended at {self.sequence}"
            )
        meta = self._meta.copy()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if segment.renewal is not None:
                self._renew(position, segment.renewal, meta)
            for sequence, entry in enumerate(segment.entries, segment.first_sequence):
                self._replace(sequence, entry, meta)
            for cursor in segment.cursors:
                self._connection.execute(_SET_CURSOR, (cursor.device_id.raw, str(cursor.index_id), cursor.sequence))
            if meta["bytes"] > MAX_BYTES:
                raise DataError(f"with log segment {position}, the folder has {meta['bytes']} bytes, which cannot be")
            meta |= {
                "position": position,
                "sequence": segment.last_sequence,
                "time_ms": segment.time_ms,
                "append_id": short_append_id(segment),
            }
            self._connection.executemany("UPDATE meta SET value = ?2 WHERE key = ?1", meta.items())
            self._connection.execute("COMMIT")
        except BaseException:
            self._devices.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._meta = meta

    def _renew(self, position: int, renewal: Renewal, meta: dict[str, int]) -> None:
        if renewal.index_id == meta["index_id"]:
            raise DataError(f"log segment {position} renews the index of the folder and keeps its id")
        meta["index_id"] = renewal.index_id
        self._connection.execute("DELETE FROM cursors")
        for removal in renewal.removals:
            if removal.missing_object:
                self._note_missing(removal, meta)
            else:
                self._forget_missing(removal.name_hash, meta)
            self._remove(removal.name_hash, meta)

    def _note_missing(self, removal: Removal, meta: dict[str, int]) -> None:
        has: tuple[str, bytes] | None = None
        if not removal.name:
            has = self._name_and_version(removal.name_hash)
        meta["missing"] += self._missing.add(removal, has)

    def _name_and_version(self, key: bytes) -> tuple[str, bytes] | None:
        row = self._connection.execute("SELECT version, file_info FROM files WHERE name_hash = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            name = pb.FileInfo.FromString(row[1]).name
        except (DecodeError, TypeError) as error:
            raise self._connection.damaged(f"the file info of {key.hex()} cannot be read") from error
        if name_key(name) != key:
            raise self._misplaced(name)
        return name, row[0]

    def _forget_missing(self, key: bytes, meta: dict[str, int]) -> None:
        if meta["missing"]:
            meta["missing"] -= self._missing.forget(key)

    def _remove(self, key: bytes, meta: dict[str, int]) -> None:
        row = self._connection.execute("SELECT sequence, kind, size FROM files WHERE name_hash = ?", (key,)).fetchone()
        if row is not None:
            self._connection.execute("DELETE FROM files WHERE sequence = ?", (row[0],))
            meta[COUNTERS[row[1]]] -= 1
            meta["bytes"] -= row[2]

    def _replace(self, sequence: int, entry: Entry, meta: dict[str, int]) -> None:
        message = entry.file_info.message
        key = name_key(message.name)
        self._remove(key, meta)
        if meta["missing"] and not self._missing.has_newer(key, message.version):
            self._forget_missing(key, meta)
        kind = _kind(message)
        size = message.size if kind == _KIND_FILE else 0
        meta[COUNTERS[kind]] += 1
        meta["bytes"] += size
        stored = entry.stored
        self._connection.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                sequence,
                key,
                kind,
                size,
                self._device_number(entry.source) if entry.source is not None else None,
                message.version.SerializeToString(),
                stored.object_name if stored else None,
                stored.size if stored else None,
                stored.part_size if stored else None,
                struct.pack(f">{len(stored.part_crc32c)}I", *stored.part_crc32c) if stored else None,
                entry.file_info.raw,
            ),
        )

    def _device_number(self, device_id: DeviceID) -> int:
        number = self._devices.get(device_id.raw)
        if number is None:
            if len(self._devices) >= _CACHED_DEVICES:
                self._devices.clear()
            # Numbers rise from 1, so every gateway gives a device the same one.
            self._connection.execute("INSERT OR IGNORE INTO devices (device_id) VALUES (?)", (device_id.raw,))
            found = self._connection.execute("SELECT number FROM devices WHERE device_id = ?", (device_id.raw,))
            number = self._devices[device_id.raw] = int(found.fetchone()[0])
        return number

    def wants(self, file_info: FileInfo) -> bool:
        """Return whether a file info is newer than what the folder has under its name."""
        return self.wants_version(name_key(file_info.name), file_info.message.version)

    def wants_version(self, key: bytes, version: pb.Vector) -> bool:
        """Return whether a version is newer than what the folder has under the name with this hash."""
        row = self._connection.execute("SELECT version FROM files WHERE name_hash = ?", (key,)).fetchone()
        try:
            return row is None or is_newer(version, pb.Vector.FromString(row[0]))
        except (DecodeError, TypeError) as error:
            raise self._connection.damaged(f"the version of {key.hex()} cannot be read") from error

    def entry(self, name: str) -> Entry | None:
        """Return what the folder has under an encrypted name."""
        row = self._connection.execute("SELECT sequence FROM files WHERE name_hash = ?", (name_key(name),)).fetchone()
        if row is None:
            return None
        sequence = row[0]
        found = self._parsed.get(sequence)
        if found is None:
            found = self.entry_at(sequence)
            if (size := found.file_info.memory_size) <= _LARGE_ENTRY:
                self._parsed.put(sequence, found, size)
        if found.file_info.name != name:
            raise self._misplaced(found.file_info.name)
        return found

    def size_of(self, name: str) -> tuple[int, int] | None:
        """Return sequence number and bytes of the file info of an encrypted name, or None if the folder lacks it."""
        row = self._connection.execute(
            "SELECT sequence, length(file_info) FROM files WHERE name_hash = ?", (name_key(name),)
        ).fetchone()
        return (row[0], row[1]) if row is not None else None

    @property
    def generation(self) -> object:
        """Another object whenever the file was replaced by another state's."""
        return self._opened

    def damaged(self, what: str) -> StateDamaged:
        """Note that the file turned out to be damaged, and return the error to raise."""
        return self._connection.damaged(what)

    def _misplaced(self, name: str) -> EntryMisplaced:
        self._connection.on_damage()
        return EntryMisplaced(f"the local state is damaged: it has {name!r} under another name")

    def entry_at(self, sequence: int) -> Entry:
        """Return what the folder has under a sequence number, which must be in use."""
        row = self._connection.execute(ENTRY_COLUMNS, (sequence,)).fetchone()
        if row is None:
            raise self._connection.damaged(f"sequence {sequence} is missing")
        try:
            return read_row(row)
        except (ValueError, TypeError) as error:
            raise self._connection.damaged(f"sequence {sequence} cannot be read") from error

    def file_infos_after(self, sequence: int, limit: int) -> Iterator[tuple[int, bytes]]:
        """Yield sequence numbers above `sequence`, in order, with their serialized file infos; at most `limit`."""
        yield from self._connection.execute(
            "SELECT sequence, file_info FROM files WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, limit)
        )

    def sequences_after(self, sequence: int, limit: int) -> Iterator[int]:
        """Yield sequence numbers above `sequence` that are in use, in order; at most `limit`."""
        for row in self._connection.execute(
            "SELECT sequence FROM files WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, limit)
        ):
            yield row[0]

    def has_sequence(self, sequence: int) -> bool:
        """Return whether a sequence number is in use."""
        return self._connection.execute("SELECT 1 FROM files WHERE sequence = ?", (sequence,)).fetchone() is not None

    def named_file_infos(self, after: int = 0) -> Generator[tuple[int, bytes, bytes]]:
        """Yield the sequence numbers above `after`, in order, with the hash of the name and the serialized file info.

        In a state that somebody else made, the hash may be that of another name.
        """
        yield from self._connection.execute(
            "SELECT sequence, name_hash, file_info FROM files WHERE sequence > ? ORDER BY sequence", (after,)
        )

    def sources(self, after: int = 0) -> Iterator[tuple[int, bytes, DeviceID | None]]:
        """Yield sequence numbers above `after`, in order, with the hash of the name and the source of the entry."""
        rows = self._connection.execute(
            "SELECT sequence, name_hash, device_id FROM files LEFT JOIN devices ON number = source"
            " WHERE sequence > ? ORDER BY sequence",
            (after,),
        )
        for sequence, key, source in rows:
            yield sequence, key, DeviceID(source) if source is not None else None

    def sequence_of(self, key: bytes) -> int | None:
        """Return the sequence number of the entry of the name with this hash, or None if the folder lacks it."""
        row = self._connection.execute("SELECT sequence FROM files WHERE name_hash = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def file_info_of(self, key: bytes) -> bytes | None:
        """Return the serialized file info of the name with this hash, or None if the folder lacks it."""
        row = self._connection.execute("SELECT file_info FROM files WHERE name_hash = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def has(self, entry: Entry) -> bool:
        """Return whether the folder has this file info, with this object and source, under its name."""
        row = self._connection.execute(
            "SELECT content_hash, device_id, file_info FROM files LEFT JOIN devices ON number = source"
            " WHERE name_hash = ?",
            (name_key(entry.file_info.name),),
        ).fetchone()
        stored = entry.stored.object_name if entry.stored else None
        source = entry.source.raw if entry.source else None
        return row is not None and tuple(row) == (stored, source, entry.file_info.raw)

    def missing(self, limit: int = -1) -> Iterator[MissingFile]:
        """Yield the files that were taken back because their objects are missing or damaged; at most `limit`."""
        return self._missing.files(limit)

    def is_missing(self, key: bytes) -> bool:
        """Return whether the name with this hash is in `missing`."""
        return bool(self._meta["missing"]) and key in self._missing

    def condemned(self, key: bytes) -> frozenset[str]:
        """Return the names of the objects of the name with this hash that were found missing or damaged at any time.

        Nobody may take one of them for a complete object: it may lie there, damaged.
        """
        return self._missing.condemned(key)

    def is_condemned(self, entry: Entry) -> bool:
        """Return whether the object of an entry is one of those."""
        return entry.stored is not None and entry.stored.object_name in self.condemned(name_key(entry.file_info.name))

    def objects(self) -> Iterator[NamedObject]:
        """Yield the objects of all entries. The state may change meanwhile: then also those that come."""
        after = 0
        while rows := self._connection.execute(
            "SELECT sequence, name_hash, content_hash, object_size FROM files"
            " WHERE sequence > ? AND content_hash IS NOT NULL ORDER BY sequence LIMIT ?",
            (after, _ROWS_AT_ONCE),
        ).fetchall():
            for row in rows:
                yield NamedObject(*row[1:])
            after = rows[-1][0]

    def object_of(self, key: bytes) -> NamedObject | None:
        """Return the object of the entry of the name with this hash, or None if the folder lacks it."""
        row = self._connection.execute(
            "SELECT content_hash, object_size FROM files WHERE name_hash = ? AND content_hash IS NOT NULL", (key,)
        ).fetchone()
        return NamedObject(key, *row) if row is not None else None

    def differing(self, other: Path) -> array[int]:
        """Return the sequence numbers in another state's file of those entries that are not here as they are there.

        They differ in their version, their file info, or the object with their data. The numbers rise.
        """
        found = array("q")
        self._compare(
            other,
            found,
            "SELECT theirs.sequence FROM other.files AS theirs LEFT JOIN files AS ours USING (name_hash)"
            " WHERE ours.version IS NULL OR ours.version != theirs.version OR ours.file_info != theirs.file_info"
            " OR ours.content_hash IS NOT theirs.content_hash ORDER BY theirs.sequence",
        )
        return found

    def names_without(self, other: Path) -> list[bytes]:
        """Return the hashes of the names of which another state's file has no entry."""
        found: list[bytes] = []
        self._compare(
            other,
            found,
            "SELECT ours.name_hash FROM files AS ours LEFT JOIN other.files AS theirs USING (name_hash)"
            " WHERE theirs.sequence IS NULL",
        )
        return found

    def _compare(self, other: Path, found: MutableSequence[Any], query: str) -> None:
        """Add what a query about this state and another one finds."""
        self._connection.execute("ATTACH ? AS other", (f"{other.absolute().as_uri()}?mode=ro",))
        try:
            found.extend(row[0] for row in self._connection.execute(query))
        finally:
            self._connection.execute("DETACH other")

    def cursor(self, device_id: DeviceID) -> IndexState:
        """Return how much of a device's index the log reflects."""
        row = self._connection.execute(
            "SELECT index_id, sequence FROM cursors WHERE device_id = ?", (device_id.raw,)
        ).fetchone()
        return IndexState(int(row[0]), row[1]) if row else IndexState()

    def write_copy(self, path: Path) -> int:
        """Write the state as one compact SQLite file and return its position.

        May run in a thread beside the other methods: it uses another connection. Raises StateDamaged, without a call of
        `on_damage`, when the file turns out to be damaged.
        """
        opened = self._opened
        try:
            return self._write_copy(path)
        except sqlite3.DatabaseError as error:
            if is_damage(error) and self._opened is opened:
                raise StateDamaged(f"the local state is damaged ({error}) and is made again from the store") from error
            raise

    def _write_copy(self, path: Path) -> int:
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("VACUUM INTO ?", (str(path),))
        finally:
            connection.close()
        copy = sqlite3.connect(path)
        try:
            return int(copy.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()[0])
        finally:
            copy.close()


def short_append_id(segment: Segment) -> int:
    """Return what `FolderState.append_id` is after a segment; 0 for one of no bytes."""
    return int.from_bytes(segment.append_id[:8], "big") >> 1


def _kind(message: pb.FileInfo) -> int:
    if message.deleted:
        return _KIND_DELETED
    return _KIND_FILE if message.type == pb.FILE else _KIND_DIRECTORY
