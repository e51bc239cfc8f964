"""What a folder's state says of its names (index/state.py)."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import EntryMisplaced
from untrusted_s3.index.entry import ENTRY_COLUMNS, Entry, NamedObject, StoredObject, read_checksums, read_row
from untrusted_s3.index.missing_files import MissingFile
from untrusted_s3.index.row import CurrentVersion, DisputedName, Row, RowClaims, VersionKey
from untrusted_s3.index.state_file import StateFile
from untrusted_s3.store.layout import name_key
from untrusted_s3.units import MIB

# How many hashes of names a query has.
_NAMES_AT_ONCE = 500
# How many names stay looked up: more than a folder has in work at once.
_LOOKED_UP = 8192
# Rows that are in memory while all are gone through.
_ROWS_AT_ONCE = 1000
# Larger parsed entries are not kept: index/block_table.py has their blocks.
_LARGE_ENTRY = 4 * MIB
_OBJECTS = """
SELECT sequence, 0, name_hash, content_hash, object_size FROM files
WHERE sequence > ?1 AND content_hash IS NOT NULL ORDER BY sequence LIMIT ?3
"""
_OBJECTS_OF_DISSENTS = """
SELECT sequence, number, name_hash, dissents.content_hash, dissents.object_size
FROM dissents JOIN files USING (sequence)
WHERE (sequence, number) > (?1, ?2) AND dissents.content_hash IS NOT NULL ORDER BY sequence, number LIMIT ?3
"""


def _of_name(*columns: str) -> str:
    """Return the query of columns of all versions of a name that have an object, that of the current version first."""
    of_dissents = ", ".join(f"dissents.{column}" for column in columns)
    return f"""
    SELECT {", ".join(columns)}, 0 AS number FROM files WHERE name_hash = ?1 AND content_hash IS NOT NULL
    UNION ALL SELECT {of_dissents}, number FROM dissents JOIN files USING (sequence)
    WHERE name_hash = ?1 AND dissents.content_hash IS NOT NULL ORDER BY number
    """  # noqa: S608


_OBJECTS_OF_NAME = _of_name("content_hash", "object_size")
_STORED_OF_NAME = _of_name("content_hash", "object_size", "part_size", "part_crc32c")


class StateQueries(StateFile):
    """The state of one folder after the log segment at `position`, to be read."""

    def wants(self, file_info: FileInfo) -> bool:
        """Return whether a file info is newer than what the folder has under its name."""
        return self.wants_version(name_key(file_info.name), file_info.message.version)

    def wants_version(self, key: bytes, version: pb.Vector) -> bool:
        """Return whether a version is newer than what the folder has under the name with this hash."""
        current = self.current(key)
        return current is None or current.is_older_than(version)

    def entry(self, name: str) -> Entry | None:
        """Return what the folder has under an encrypted name."""
        sequence = self.sequence_of(name_key(name))
        return self.version(sequence, 0, name) if sequence is not None else None

    def version(self, sequence: int, number: int, name: str) -> Entry | None:
        """Return a version of an encrypted name that has a sequence number: with `number` 0 the current one.

        None for a dissent that is not there any more.
        """
        found = self._parsed.get((sequence, number))
        if found is None:
            found = self._claims.dissent(sequence, number, name) if number else self.entry_at(sequence)
            if found is None:
                return None
            self._keep_parsed(sequence, number, found)
        if found.file_info.name != name:
            raise self._misplaced(found.file_info.name)
        return found

    def _keep_parsed(self, sequence: int, number: int, entry: Entry) -> None:
        if (size := entry.file_info.memory_size) <= _LARGE_ENTRY:
            self._parsed.put((sequence, number), entry, size)

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

    def size_of(self, name: str) -> tuple[int, int] | None:
        """Return sequence number and bytes of the file info of an encrypted name, or None if the folder lacks it."""
        key = name_key(name)
        if self._is_absent(key):
            return None
        row = self._connection.execute(
            "SELECT sequence, length(file_info) FROM files WHERE name_hash = ?", (key,)
        ).fetchone()
        return (row[0], row[1]) if row is not None else None

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

    def file_infos_after(
        self, sequence: int, limit: int, device_id: DeviceID | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield sequence numbers above `sequence`, in order, with their serialized file infos; at most `limit`.

        Those are of the current versions or, with `device_id`, of the versions that the device is shown.
        """
        rows = self._connection.execute(
            "SELECT sequence, file_info FROM files WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, limit)
        )
        if device_id is None or not self.disputed_count:
            yield from rows
            return
        for number, raw in rows:
            dissent = self._claims.shown(number, device_id) if self._claims.is_disputed(number) else 0
            yield number, (self._claims.file_info(number, dissent) if dissent else raw)

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
        if key in self._looked_up:
            current = self._looked_up[key]
            return current.sequence if current is not None else None
        row = self._connection.execute("SELECT sequence FROM files WHERE name_hash = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def row(self, key: bytes) -> Row | None:
        """Return all that the folder has under the name with this hash, or None if it lacks the name."""
        sequence = self.sequence_of(key)
        if sequence is None:
            return None
        row = self.row_at(sequence)
        if name_key(row.entry.file_info.name) != key:
            raise self._misplaced(row.entry.file_info.name)
        return row

    def row_at(self, sequence: int) -> Row:
        """Return all that the folder has under a sequence number, which must be in use."""
        return self._claims.row(sequence, self.entry_at(sequence))

    def is_disputed(self, sequence: int) -> bool:
        """Return whether the name with a sequence number has dissents."""
        return self.disputed_count > 0 and self._claims.is_disputed(sequence)

    def disputed_claims(self, key: bytes) -> RowClaims | None:
        """Return the claims to the name with this hash if it has dissents, else None."""
        if not self.disputed_count:
            return None
        sequence = self.sequence_of(key)
        disputed = sequence is not None and self._claims.is_disputed(sequence)
        return self._claims.claims(sequence)[0] if sequence is not None and disputed else None

    def disputed_name(self, sequence: int) -> DisputedName | None:
        """Return the claims to the name with a sequence number, or None if no name with dissents has it."""
        if not self.is_disputed(sequence):
            return None
        (key,) = self._connection.execute("SELECT name_hash FROM files WHERE sequence = ?", (sequence,)).fetchone()
        return DisputedName(sequence, key, self._claims.claims(sequence)[0])

    def disputed(self) -> Iterator[Row]:
        """Yield the rows of the names with dissents, by their sequence numbers."""
        if self.disputed_count:
            for sequence in self._claims.disputed(0, self.sequence):
                yield self.row_at(sequence)

    def dissent_sizes(self, sequence: int) -> list[tuple[int, int]]:
        """Return the number of each dissent with a sequence number, in order, and the bytes of its file info."""
        return self._claims.sizes(sequence) if self.disputed_count else []

    def shown(self, sequence: int, device_id: DeviceID) -> int:
        """Return what a device is shown of a name with dissents: the number of a dissent, 0 for the current version."""
        return self._claims.shown(sequence, device_id)

    def current(self, key: bytes) -> CurrentVersion | None:
        """Return the current version of the name with this hash, or None if the folder lacks it."""
        if key not in self._looked_up:
            self.look_up((key,))
        return self._looked_up[key]

    def look_up(self, keys: Sequence[bytes]) -> None:
        """Read the current versions of names by their hashes, many at once.

        Until a name changes, or many others were looked up, `current` then costs no statement, nor does anything that
        is asked of a name that the folder lacks.
        """
        unknown = [key for key in keys if key not in self._looked_up]
        for start in range(0, len(unknown), _NAMES_AT_ONCE):
            some = unknown[start : start + _NAMES_AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT name_hash, sequence, version, kind, content_hash FROM files WHERE name_hash IN ({places})"  # noqa: S608
            found = {row[0]: self._current_version(*row) for row in self._connection.execute(query, some).fetchall()}
            self._looked_up.update((key, found.get(key)) for key in some)
        for key in list(itertools.islice(self._looked_up, max(len(self._looked_up) - _LOOKED_UP, 0))):
            del self._looked_up[key]

    def tidy(self) -> None:
        """Give back the memory of what was looked up."""
        self._looked_up.clear()

    def _current_version(
        self, key: bytes, sequence: int, version: bytes, kind: int, object_name: str | None
    ) -> CurrentVersion:
        try:
            vector = pb.Vector.FromString(version)
            return CurrentVersion(sequence, vector, VersionKey.of_columns(vector, kind, object_name))
        except (DecodeError, TypeError) as error:
            raise self._connection.damaged(f"the version of {key.hex()} cannot be read") from error

    def _is_absent(self, key: bytes) -> bool:
        """Return whether the folder is known to lack the name with this hash. False if it was not looked up."""
        return key in self._looked_up and self._looked_up[key] is None

    def disputed_sequences(self, after: int = 0, limit: int = -1) -> list[int]:
        """Return the sequence numbers above `after` of names with dissents, in order; at most `limit`."""
        return self._claims.disputed(after, self.sequence, limit) if self.disputed_count else []

    def declined_long_ago(
        self, device_id: DeviceID, after: int, now: float, first_pause: float, longest_pause: float, limit: int
    ) -> list[int]:
        """Return the sequence numbers above `after` of names of which a device declined a version before a pause.

        The pause is `first_pause` seconds after the first time, and twice as long each time, up to `longest_pause`.
        """
        number = self._devices.find(device_id)
        if number is None:
            return []
        return self._claims.declined_long_ago(number, after, now, first_pause, longest_pause, limit)

    def versions(self, name: str) -> tuple[Entry, ...]:
        """Return the current version of an encrypted name and its dissents; nothing if the folder lacks the name."""
        current = self.entry(name)
        if current is None or not self.disputed_count:
            return (current,) if current is not None else ()
        sequence = self.sequence_of(name_key(name))
        assert sequence is not None
        return current, *(entry for _, entry in self._claims.dissents(sequence, name))

    def versions_at(self, sequence: int) -> tuple[Entry, ...]:
        """Return the current version and the dissents under a sequence number, which must be in use."""
        current = self.entry_at(sequence)
        if not self.disputed_count:
            return (current,)
        return current, *(entry for _, entry in self._claims.dissents(sequence, current.file_info.name))

    def claimed_by(self, sequence: int) -> frozenset[DeviceID]:
        """Return the devices that claim the current version with a sequence number."""
        return frozenset(map(self._devices.device_id, self._claims.claiming(sequence)))

    def is_claimed(self, device_id: DeviceID, sequence: int) -> bool:
        """Return whether a device claims the current version with a sequence number."""
        number = self._devices.find(device_id)
        return number is not None and number in self._claims.claiming(sequence)

    def file_info_of(self, key: bytes) -> bytes | None:
        """Return the serialized file info of the name with this hash, or None if the folder lacks it."""
        row = self._connection.execute("SELECT file_info FROM files WHERE name_hash = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def has(self, entry: Entry) -> bool:
        """Return whether the folder has this file info, with this object, source and claims, under its name."""
        row = self._connection.execute(
            "SELECT sequence, content_hash, device_id, file_info FROM files LEFT JOIN devices ON number = source"
            " WHERE name_hash = ?",
            (name_key(entry.file_info.name),),
        ).fetchone()
        stored = entry.stored.object_name if entry.stored else None
        source = entry.source.raw if entry.source else None
        if row is None or tuple(row[1:]) != (stored, source, entry.file_info.raw):
            return False
        return self._claims.has(row[0], entry)

    def missing(self, limit: int = -1) -> Iterator[MissingFile]:
        """Yield the files that were taken back because their objects are missing or damaged; at most `limit`."""
        return self._missing.files(limit)

    def is_missing(self, key: bytes, version: pb.Vector | None = None) -> bool:
        """Return whether the name with this hash is in `missing`, with `version` or a newer one."""
        return bool(self._meta["missing"]) and self._missing.has(key, version)

    def condemned(self, key: bytes) -> frozenset[str]:
        """Return the names of the objects of the name with this hash that were found missing or damaged at any time.

        Nobody may take one of them for a complete object: it may lie there, damaged.
        """
        return self._missing.condemned(key)

    def is_condemned(self, entry: Entry) -> bool:
        """Return whether the object of an entry, or of a dissent of it, is one of those."""
        names = [version.stored.object_name for version in entry.versions if version.stored is not None]
        return bool(names) and not self.condemned(name_key(entry.file_info.name)).isdisjoint(names)

    def objects(self) -> Iterator[NamedObject]:
        """Yield the objects of all versions. The state may change meanwhile: then also those that come.

        One that two versions of a name share comes twice.
        """
        yield from self._objects(_OBJECTS)
        if self.disputed_count:
            yield from self._objects(_OBJECTS_OF_DISSENTS)

    def _objects(self, query: str) -> Iterator[NamedObject]:
        after = (0, 0)
        while rows := self._connection.execute(query, (*after, _ROWS_AT_ONCE)).fetchall():
            for row in rows:
                yield NamedObject(*row[2:])
            after = rows[-1][:2]

    def stored_objects(self, key: bytes) -> list[StoredObject]:
        """Return the objects of the versions of the name with this hash, that of the current version first."""
        if self._is_absent(key):
            return []
        rows = self._connection.execute(_STORED_OF_NAME, (key,)).fetchall()
        try:
            return [
                StoredObject(name, size, part_size, read_checksums(crcs)) for name, size, part_size, crcs, _ in rows
            ]
        except (ValueError, TypeError) as error:
            raise self._connection.damaged(f"the objects of {key.hex()} cannot be read") from error

    def objects_of(self, key: bytes) -> list[NamedObject]:
        """Return the objects of the versions of the name with this hash, that of the current version first."""
        if self._is_absent(key):
            return []
        rows = self._connection.execute(_OBJECTS_OF_NAME, (key,)).fetchall()
        return list(dict.fromkeys(NamedObject(key, name, size) for name, size, _ in rows))
