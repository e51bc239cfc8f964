"""The pending index: for each peer, the announced entries that the folder does not have yet.

No copy of a peer's index is kept. The index is a local file, so that a restart continues where it was. Without it,
peers send again what lies beyond their cursors in the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import FileInfoRefused
from untrusted_s3.index.database import open_database
from untrusted_s3.index.parsed import ParsedFileInfos
from untrusted_s3.index.refused import Refused, RefusedFiles
from untrusted_s3.store.layout import name_key

_PENDING_VERSION = 3
_SCHEMA = """
CREATE TABLE received (
    device_id BLOB PRIMARY KEY,
    index_id TEXT NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE refused (
    device_id BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pending (
    device_id BLOB NOT NULL,
    name_hash BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    version BLOB NOT NULL,
    content_hash TEXT,
    size INTEGER NOT NULL,
    file_info BLOB NOT NULL,
    PRIMARY KEY (device_id, name_hash)
);
CREATE INDEX pending_by_sequence ON pending (device_id, sequence, name_hash);
CREATE INDEX pending_by_name ON pending (name_hash, device_id, sequence, size);
"""
_COLUMNS = "name_hash, sequence, version, content_hash, size, length(file_info)"
_HAS_OTHERS = """
SELECT EXISTS (SELECT 1 FROM pending WHERE device_id < ?1) OR EXISTS (SELECT 1 FROM pending WHERE device_id > ?1)
"""
# By how much the totals fall when the entries of one device are gone.
_ONLY_OF_DEVICE = """
SELECT coalesce(sum(others IS NULL), 0), coalesce(sum(max(size - coalesce(others, 0), 0)), 0) FROM (
    SELECT size, (
        SELECT max(other.size) FROM pending AS other
        WHERE other.name_hash = own.name_hash AND other.device_id != own.device_id
    ) AS others
    FROM pending AS own WHERE own.device_id = ?
)
"""
# A version has one counter, of some bytes; a peer that sends longer ones gets smaller batches.
_BATCH_VERSIONS_SIZE = 1024 * 1024
_AFTER_ALL_KEYS = b"\xff" * 17


@dataclass(frozen=True, slots=True)
class Announced:
    """A file info that a peer announces, and the hash of its content, or None where it has no data."""

    file_info: FileInfo
    content_hash: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """An announced entry that is to be handled. `PendingIndex.file_info` loads its file info.

    Attributes:
        device_id: The announcing device.
        name_hash: The hash of the encrypted name.
        sequence: The announcing device's sequence number.
        version: The serialized version vector.
        content_hash: The hash of the content, or None where the entry has no data.
        size: The bytes of the data.
        file_info_size: The bytes of the serialized file info.
    """

    device_id: DeviceID
    name_hash: bytes
    sequence: int
    version: bytes
    content_hash: str | None
    size: int
    file_info_size: int

    @property
    def has_data(self) -> bool:
        """Whether the entry has blocks to pull."""
        return self.content_hash is not None

    @property
    def vector(self) -> pb.Vector:
        """The version vector."""
        return pb.Vector.FromString(self.version)


class PendingIndex:
    """The pending entries of one folder.

    A file info that breaks a rule is left out and noted as refused. A device's cursor does not pass it, and after a
    restart the device is asked for it again: perhaps this program has other limits then.

    Attributes:
        path: The local file.
        refused: What is left out of devices' indexes.
    """

    def __init__(self, path: Path, on_damage: Callable[[], None] = lambda: None, parsed: Account | None = None) -> None:
        """Open the file, or make an empty one. Raises StateFolderUnusable.

        `parsed` bounds the file infos that stay in memory after they were added. All methods raise StateDamaged, after
        a call of `on_damage`, when the file turns out to be damaged.
        """
        self.path = path
        self._connection = open_database(path, _SCHEMA, _PENDING_VERSION)
        self._connection.on_damage = on_damage
        self._parsed = ParsedFileInfos(parsed if parsed is not None else Account(0))
        self.refused = RefusedFiles()
        self._ask_again_for_refused()
        self._files, self._bytes = self._connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT max(size) AS size FROM pending GROUP BY name_hash)"
        ).fetchone()

    @property
    def totals(self) -> tuple[int, int]:
        """The number of pending names, and the bytes of their data.

        A name that several devices announce counts once, with the largest of its sizes.
        """
        return self._files, self._bytes

    def close(self) -> None:
        """Close the file."""
        self._parsed.clear()
        self._connection.close()

    def received(self, device_id: DeviceID) -> IndexState:
        """Return how much of a device's index has arrived here, handled or pending."""
        row = self._connection.execute(
            "SELECT index_id, sequence FROM received WHERE device_id = ?", (device_id.raw,)
        ).fetchone()
        return IndexState(int(row[0]), row[1]) if row else IndexState()

    def start(self, device_id: DeviceID, state: IndexState) -> None:
        """Drop what is pending from a device; its index is known up to `state`."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            files, size = self._files, self._bytes
            if self._connection.execute(_HAS_OTHERS, (device_id.raw,)).fetchone()[0]:
                files, size = self._connection.execute(_ONLY_OF_DEVICE, (device_id.raw,)).fetchone()
            self._connection.execute("DELETE FROM pending WHERE device_id = ?", (device_id.raw,))
            self._connection.execute("DELETE FROM refused WHERE device_id = ?", (device_id.raw,))
            self._set_received(device_id, state)
        self._apply([(-files, -size)])
        self._parsed.drop(device_id)
        self.refused.drop(device_id)

    def add(
        self,
        device_id: DeviceID,
        state: IndexState,
        wanted: Sequence[Announced],
        unwanted: Iterable[str],
        refused: Sequence[FileInfoRefused] = (),
    ) -> list[Refused]:
        """Take in an index message of a device, after which its index is known up to `state`.

        `wanted` becomes pending; the names in `unwanted` and `refused` are no longer pending from this device. A name
        is in one of the three only. Return the files that were not refused before.
        """
        device = device_id.raw
        infos = {name_key(announced.file_info.name): announced for announced in wanted}
        rows = [_row(device, key, announced) for key, announced in infos.items()]
        left_out = [Refused.of(name_key(one.name), one.name, one.sequence, one.reason) for one in refused]
        others = {key for key in map(name_key, unwanted) if key not in infos}
        gone = others | {one.key for one in left_out}
        first_refused = self.refused.first(device_id)
        new = self.refused.update(device_id, left_out, [*infos, *others])
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            changes = [_change(self._entries(row[1]), {device: row[5]}) for row in rows]
            changes += [_change(self._entries(key), {device: None}) for key in gone]
            self._connection.executemany(
                "DELETE FROM pending WHERE device_id = ? AND name_hash = ?", [(device, key) for key in gone]
            )
            self._connection.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._set_received(device_id, state)
            if self.refused.first(device_id) != first_refused:
                self._set_refused(device_id)
        self._apply(changes)
        for key in gone:
            self._parsed.take(device_id, key)
        for key, announced in infos.items():
            self._parsed.put(device_id, key, announced.file_info)
        return new

    def remove(self, entries: Iterable[Pending]) -> set[bytes]:
        """Remove entries that have been handled, except those that the device has announced again since.

        Return the hashes of those names under which nothing is pending now.
        """
        by_name: dict[bytes, set[Pending]] = {}
        for entry in entries:
            by_name.setdefault(entry.name_hash, set()).add(entry)
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            changes = []
            gone: list[Pending] = []
            done = set()
            for key, handled in by_name.items():
                there = self._entries(key)
                same = [entry for entry in handled if there.get(entry.device_id.raw, (0, 0))[0] == entry.sequence]
                changes.append(_change(there, {entry.device_id.raw: None for entry in same}))
                gone += same
                if len(same) == len(there):
                    done.add(key)
            self._connection.executemany(
                "DELETE FROM pending WHERE device_id = ? AND name_hash = ?",
                [(entry.device_id.raw, entry.name_hash) for entry in gone],
            )
        self._apply(changes)
        for entry in gone:
            self._parsed.take(entry.device_id, entry.name_hash)
        return done

    def after(self, device_id: DeviceID, sequence: int, limit: int, key: bytes = _AFTER_ALL_KEYS) -> list[Pending]:
        """Return a device's pending entries beyond a sequence number, in order: `limit` or fewer.

        Entries of the same sequence number are in the order of their name hashes; with `key`, those whose name hash is
        above `key` are returned too.
        """
        entries: list[Pending] = []
        size = 0
        for row in self._connection.execute(
            f"SELECT {_COLUMNS} FROM pending WHERE device_id = ? AND (sequence, name_hash) > (?, ?) "  # noqa: S608
            "ORDER BY sequence, name_hash LIMIT ?",
            (device_id.raw, sequence, key, limit),
        ):
            entries.append(Pending(device_id, *row))
            size += len(entries[-1].version)
            if size >= _BATCH_VERSIONS_SIZE:
                break
        return entries

    def of_name(self, key: bytes) -> list[Pending]:
        """Return what all devices have announced under the name with this hash."""
        rows = self._connection.execute(
            f"SELECT device_id, {_COLUMNS} FROM pending WHERE name_hash = ?",  # noqa: S608
            (key,),
        )
        return [Pending(DeviceID(row[0]), *row[1:]) for row in rows.fetchall()]

    def file_info(self, entry: Pending) -> FileInfo | None:
        """Return the file info of an entry: once as it was added, then parsed again each time.

        None when the device has announced something else under the name since.
        """
        file_info = self._parsed.take(entry.device_id, entry.name_hash, entry.sequence)
        if file_info is not None:
            return file_info
        row = self._connection.execute(
            "SELECT file_info FROM pending WHERE device_id = ? AND name_hash = ? AND sequence = ?",
            (entry.device_id.raw, entry.name_hash, entry.sequence),
        ).fetchone()
        if row is None:
            return None
        try:
            return FileInfo(row[0], pb.FileInfo.FromString(row[0]))
        except DecodeError as error:
            raise self._connection.damaged(f"pending sequence {entry.sequence} cannot be read") from error

    def handled(self, device_id: DeviceID, handled_too: Iterable[int] = ()) -> IndexState:
        """Return up to where a device's index is fully handled.

        The entries with the sequence numbers in `handled_too` count as handled. Several entries may have the same one.
        """
        received = self.received(device_id)
        reached = received.max_sequence
        refused = self.refused.first(device_id)
        if refused is not None:
            reached = min(reached, refused - 1)
        left = Counter(handled_too)
        for sequence in self._sequences(device_id):
            if sequence > reached:
                break
            if not left[sequence]:
                reached = sequence - 1
                break
            left[sequence] -= 1
        return IndexState(received.index_id, reached)

    def devices(self) -> list[DeviceID]:
        """Return all devices whose index has arrived, in whole or in part."""
        return [DeviceID(row[0]) for row in self._connection.execute("SELECT device_id FROM received").fetchall()]

    def _sequences(self, device_id: DeviceID) -> Iterator[int]:
        for row in self._connection.execute(
            "SELECT sequence FROM pending WHERE device_id = ? ORDER BY sequence", (device_id.raw,)
        ):
            yield row[0]

    def _set_received(self, device_id: DeviceID, state: IndexState) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO received VALUES (?, ?, ?)", (device_id.raw, str(state.index_id), state.max_sequence)
        )

    def _set_refused(self, device_id: DeviceID) -> None:
        first = self.refused.first(device_id)
        if first is None:
            self._connection.execute("DELETE FROM refused WHERE device_id = ?", (device_id.raw,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO refused VALUES (?, ?)", (device_id.raw, first))

    def _ask_again_for_refused(self) -> None:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for device, first in self._connection.execute("SELECT device_id, sequence FROM refused").fetchall():
                self._connection.execute(
                    "UPDATE received SET sequence = min(sequence, ?) WHERE device_id = ?", (max(first - 1, 0), device)
                )
            self._connection.execute("DELETE FROM refused")

    def _entries(self, key: bytes) -> dict[bytes, tuple[int, int]]:
        """Return sequence number and size of a name's entries, by device."""
        rows = self._connection.execute("SELECT device_id, sequence, size FROM pending WHERE name_hash = ?", (key,))
        return {row[0]: row[1:] for row in rows.fetchall()}

    def _apply(self, changes: Iterable[tuple[int, int]]) -> None:
        for files, size in changes:
            self._files += files
            self._bytes += size


def _change(entries: Mapping[bytes, tuple[int, int]], new: Mapping[bytes, int | None]) -> tuple[int, int]:
    """Return by how much the totals change when a name's entries get new sizes by device; None removes one."""
    before = {device: size for device, (_, size) in entries.items()}
    after = [size for size in {**before, **new}.values() if size is not None]
    return bool(after) - bool(before), max(after, default=0) - max(before.values(), default=0)


def _row(device: bytes, key: bytes, announced: Announced) -> tuple[bytes, bytes, int, bytes, str | None, int, bytes]:
    message = announced.file_info.message
    size = message.size if announced.content_hash is not None else 0
    version = message.version.SerializeToString()
    return device, key, message.sequence, version, announced.content_hash, size, announced.file_info.raw
