"""A folder's state: what the log says up to a position, kept in SQLite.

The file is a cache and may be lost at any time; the log in the bucket is authoritative.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, NamedTuple

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, LogWentBack
from untrusted_s3.index.dissent_counts import Dissents
from untrusted_s3.index.entry import KIND_FILE, Confirmation, Entry, PeerCursor, Removal, Renewal, StoredObject, kind_of
from untrusted_s3.index.row import RowClaims, shortened
from untrusted_s3.index.schema import COUNTERS
from untrusted_s3.index.schema import FolderTotals as FolderTotals
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.state_queries import StateQueries
from untrusted_s3.store.layout import name_key

# Within one index a cursor never moves back: another gateway may have handled less of it.
_SET_CURSOR = """
INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET
    index_id = excluded.index_id,
    sequence = iif(index_id = excluded.index_id, max(sequence, excluded.sequence), excluded.sequence)
"""
_ROW_TO_REMOVE = """
SELECT sequence, kind, size, source,
    EXISTS (SELECT 1 FROM claims WHERE claims.sequence = files.sequence)
    OR EXISTS (SELECT 1 FROM dissents WHERE dissents.sequence = files.sequence)
    OR EXISTS (SELECT 1 FROM declined WHERE declined.sequence = files.sequence)
FROM files WHERE name_hash = ?
"""
# How many hashes of names a query has.
_AT_ONCE = 500
# More than any store holds, and what SQLite can keep.
MAX_BYTES = 2**62


class _RowToRemove(NamedTuple):
    """What is needed to remove a row."""

    sequence: int
    kind: int
    size: int
    source: int | None
    has_claims: int


class FolderState(StateQueries):
    """The state of one folder, which follows its log."""

    def dissents(self, limit: int) -> Dissents:
        """Return how many dissents there are, with at most `limit` devices. They are not counted for that."""
        return self._claims.counted(self.disputed_count, limit)

    def stored_after(self, key: bytes, last: bytes, limit: int) -> list[tuple[bytes, list[StoredObject]]]:
        """Return the objects of at most `limit` names whose hashes are above `key` and up to `last`, in their order."""
        rows = self._connection.execute(
            "SELECT name_hash FROM files WHERE name_hash > ? AND name_hash <= ? ORDER BY name_hash LIMIT ?",
            (key, last, limit),
        ).fetchall()
        return [(row[0], self.stored_objects(row[0])) for row in rows]

    def data_of(self, key: bytes) -> tuple[int, DeviceID | None]:
        """Return the bytes of the current version of the name with this hash, and the device that they are from.

        A version without data has 0 bytes, and so has a name that the folder lacks.
        """
        row = self._connection.execute(
            "SELECT size, device_id FROM files LEFT JOIN devices ON number = source WHERE name_hash = ?", (key,)
        ).fetchone()
        if row is None:
            return 0, None
        return row[0], DeviceID(row[1]) if row[1] is not None else None

    def may_be_claimed(self, current: Entry, claims: RowClaims) -> bool:
        """Return whether devices may claim a current version that are not known to.

        An entry of a time when claims were not noted names no source. Until all devices of that time have told their
        indexes again, or declined the version, nobody knows who has it.
        """
        return current.source is None and any(
            device_id not in claims.claimed and claims.current not in claims.declined_by(device_id)
            for device_id in self._devices.without_cursor()
        )

    def skip(self, position: int) -> None:
        """Note that the log goes on after a position, up to which segments may be missing."""
        meta = self._meta | {"position": position, "append_id": 0}
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("UPDATE meta SET value = ?2 WHERE key = ?1", meta.items())
        self._meta = meta

    def apply(self, position: int, segment: Segment, *, follows: bool = True) -> None:
        """Apply the segment at the next position: first its renewal, then its confirmations, its entries and cursors.

        An entry replaces what the folder has under its name, newer or not, with all dissents and claims. One without
        claims leaves those of other devices, except beside a renewal. A device whose cursor is of another index than
        before has forgotten what it claimed. Without `follows`, segments before it may be missing. Raises LogWentBack
        where the segment is of another history than the last one applied, and DataError where position or sequence
        numbers do not follow, or a renewal does not change the index id.
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
        self._claims.begin()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if segment.renewal is not None:
                self._renew(position, segment.renewal, meta)
            for cursor in segment.cursors:
                self._note_index(cursor, segment.first_sequence - 1, meta)
            for confirmation in segment.confirmations:
                self._confirm(confirmation, meta)
            self._put(segment, meta)
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
            self._source_bytes.rolled_back()
            self._devices.rolled_back()
            self._claims.rolled_back()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._meta = meta
        self._source_bytes.committed()
        self.on_change()

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
            self._looked_up.pop(removal.name_hash, None)
            before = self._row_to_remove(removal.name_hash)
            if before is not None:
                self._remove(before, meta)

    def _note_missing(self, removal: Removal, meta: dict[str, int]) -> None:
        has: tuple[str, bytes] | None = None
        if not removal.name:
            has = self._name_and_version(removal.name_hash)
        meta["missing"] += self._missing.add(removal, has)

    def _forget_missing(self, key: bytes, meta: dict[str, int]) -> None:
        if meta["missing"]:
            meta["missing"] -= self._missing.forget(key)

    def _note_index(self, cursor: PeerCursor, last: int, meta: dict[str, int]) -> None:
        number = self._devices.set_index(cursor.device_id, cursor.index_id, last)
        if number is not None:
            meta["disputed"] -= self._claims.void(number, last, disputed=meta["disputed"] > 0)

    def _confirm(self, confirmation: Confirmation, meta: dict[str, int]) -> None:
        number = self._devices.number(confirmation.device_id)
        for sequences in confirmation.sequences:
            meta["disputed"] -= self._claims.confirm(number, sequences, disputed=meta["disputed"] > 0)

    def _row_to_remove(self, key: bytes) -> _RowToRemove | None:
        row = self._connection.execute(_ROW_TO_REMOVE, (key,)).fetchone()
        return _RowToRemove(*row) if row is not None else None

    def _remove(self, row: _RowToRemove, meta: dict[str, int]) -> None:
        self._connection.execute("DELETE FROM files WHERE sequence = ?", (row.sequence,))
        meta[COUNTERS[row.kind]] -= 1
        meta["bytes"] -= row.size
        self._source_bytes.changed(row.sequence, row.source, -row.size)
        if row.has_claims:
            meta["disputed"] -= self._claims.remove(row.sequence)

    def _put(self, segment: Segment, meta: dict[str, int]) -> None:
        """Put all entries in place. Rows of names that are new are inserted many at once, which costs half as much."""
        keys = [name_key(entry.file_info.name) for entry in segment.entries]
        known = self._known(keys)
        for key in keys:
            self._looked_up.pop(key, None)
        rows: list[tuple[Any, ...]] = []
        for sequence, (key, entry) in enumerate(zip(keys, segment.entries, strict=True), segment.first_sequence):
            if key not in known and entry.claims is None:
                known.add(key)
                rows.append(self._row(sequence, key, entry, meta))
                continue
            self._insert(rows)
            rows.clear()
            self._replace(sequence, key, entry, meta, whole=segment.renewal is not None)
            known.add(key)
        self._insert(rows)

    def _known(self, keys: list[bytes]) -> set[bytes]:
        """Return those of the hashes under which the folder has something."""
        found: set[bytes] = set()
        for start in range(0, len(keys), _AT_ONCE):
            some = [key for key in keys[start : start + _AT_ONCE] if not self._is_absent(key)]
            places = ",".join("?" * len(some))
            query = f"SELECT name_hash FROM files WHERE name_hash IN ({places})"  # noqa: S608
            if some:
                found.update(row[0] for row in self._connection.execute(query, some).fetchall())
        return found

    def _replace(self, sequence: int, key: bytes, entry: Entry, meta: dict[str, int], *, whole: bool) -> None:
        """Put an entry in place. Without claims it leaves those of other devices, unless it is the `whole` row."""
        before = self._row_to_remove(key)
        if before is not None:
            if entry.claims is None and not whole:
                entry = self._with_others(before, entry)
            self._remove(before, meta)
        self._insert([self._row(sequence, key, entry, meta)])
        if entry.claims is not None:
            meta["disputed"] += self._claims.put(sequence, entry)

    def _row(self, sequence: int, key: bytes, entry: Entry, meta: dict[str, int]) -> tuple[Any, ...]:
        """Return the row of an entry, and count it."""
        message = entry.file_info.message
        if meta["missing"] and not self._missing.has_newer(key, message.version):
            self._forget_missing(key, meta)
        kind = kind_of(message)
        size = message.size if kind == KIND_FILE else 0
        meta[COUNTERS[kind]] += 1
        meta["bytes"] += size
        source = self._devices.number(entry.source) if entry.source is not None else None
        self._source_bytes.changed(sequence, source, size)
        stored = entry.stored
        return (
            sequence,
            key,
            kind,
            size,
            source,
            message.version.SerializeToString(),
            stored.object_name if stored else None,
            stored.size if stored else None,
            stored.part_size if stored else None,
            struct.pack(f">{len(stored.part_crc32c)}I", *stored.part_crc32c) if stored else None,
            entry.file_info.raw,
        )

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            self._connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _with_others(self, before: _RowToRemove, entry: Entry) -> Entry:
        """Return an entry without claims with those that other devices have to the name, if they have any."""
        if not before.has_claims and (before.source is None or before.source == self._number_of(entry.source)):
            return entry
        row = self._claims.row(before.sequence, self.entry_at(before.sequence))
        if row.claims.claimed.keys() <= {entry.source} and not row.claims.declined:
            return entry
        return shortened(row.replaced(entry))

    def _number_of(self, device_id: DeviceID | None) -> int | None:
        return None if device_id is None else self._devices.find(device_id)


def short_append_id(segment: Segment) -> int:
    """Return what `FolderState.append_id` is after a segment; 0 for one of no bytes."""
    return int.from_bytes(segment.append_id[:8], "big") >> 1
