"""What peers have announced and the folder does not have yet: per peer, the entries still to be handled.

No copy of a peer's index is kept. A local file, so that a restart goes on where it was; without it, peers send again
what lies beyond their cursors in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from untrusted_s3 import limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.database import open_database
from untrusted_s3.store.layout import name_hash

_PENDING_VERSION = 1
_SCHEMA = """
CREATE TABLE received (
    device_id BLOB PRIMARY KEY,
    index_id TEXT NOT NULL,
    sequence INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pending (
    device_id BLOB NOT NULL,
    name_hash BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    size INTEGER NOT NULL,
    file_info BLOB NOT NULL,
    PRIMARY KEY (device_id, name_hash)
);
CREATE INDEX pending_by_sequence ON pending (device_id, sequence);
CREATE INDEX pending_by_name ON pending (name_hash);
"""


@dataclass(frozen=True, slots=True)
class Pending:
    """One announced file info that is to be handled; `sequence` is the announcing device's."""

    device_id: DeviceID
    sequence: int
    file_info: FileInfo


class PendingIndex:
    """The pending entries of one folder."""

    def __init__(self, path: Path, on_damage: Callable[[], None] = lambda: None) -> None:
        """Opens the file, or an empty one. Raises UsageError where it cannot be used.

        All methods raise StateDamaged, after a call of `on_damage`, where the file turns out to be damaged.
        """
        self.path = path
        self._connection = open_database(path, _SCHEMA, _PENDING_VERSION)
        self._connection.on_damage = on_damage
        self._files = self._bytes = 0
        self._count()

    @property
    def totals(self) -> tuple[int, int]:
        """Number of pending files and the bytes of their data; a file that several devices announce counts once."""
        if len(self.devices()) > 1:
            rows = self._connection.execute(
                "SELECT count(*), coalesce(sum(size), 0) "
                "FROM (SELECT max(size) AS size FROM pending GROUP BY name_hash)"
            )
            files, size = rows.fetchone()
            return files, size
        return self._files, self._bytes

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def received(self, device_id: DeviceID) -> IndexState:
        """How much of a device's index has arrived here, handled or pending."""
        row = self._connection.execute(
            "SELECT index_id, sequence FROM received WHERE device_id = ?", (device_id.raw,)
        ).fetchone()
        return IndexState(int(row[0]), row[1]) if row else IndexState()

    def start(self, device_id: DeviceID, state: IndexState) -> None:
        """Drops what is pending from a device and begins anew: its index is known up to `state`."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM pending WHERE device_id = ?", (device_id.raw,))
            self._set_received(device_id, state)
        self._count()

    def add(
        self, device_id: DeviceID, state: IndexState, wanted: Sequence[FileInfo], unwanted: Sequence[FileInfo]
    ) -> None:
        """Takes in one index message: `wanted` becomes pending, `unwanted` names are not pending from this device any
        more, and its index is known up to `state`."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for file_info in unwanted:
                self._delete(device_id, name_hash(file_info.name))
            for file_info in wanted:
                key = name_hash(file_info.name)
                self._delete(device_id, key)
                size = file_info.message.size if file_info.has_data else 0
                self._connection.execute(
                    "INSERT INTO pending VALUES (?, ?, ?, ?, ?)",
                    (device_id.raw, bytes.fromhex(key), file_info.message.sequence, size, file_info.raw),
                )
                self._files += 1
                self._bytes += size
            self._set_received(device_id, state)

    def remove(self, entries: Sequence[Pending]) -> None:
        """Forgets entries that have been handled; one that the device has announced anew since stays."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for entry in entries:
                self._delete(entry.device_id, name_hash(entry.file_info.name), entry.sequence)

    def after(self, device_id: DeviceID, sequence: int, limit: int) -> list[Pending]:
        """Pending entries of a device beyond a sequence number, in order: at most `limit`, and fewer where they are
        large."""
        entries: list[Pending] = []
        size = 0
        for row in self._connection.execute(
            "SELECT sequence, file_info FROM pending WHERE device_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (device_id.raw, sequence, limit),
        ):
            entries.append(Pending(device_id, row[0], _file_info(row[1])))
            size += len(row[1])
            if size >= limits.PENDING_BATCH_SIZE:
                break
        return entries

    def of_name(self, name: str) -> list[Pending]:
        """What all devices have announced under one encrypted name."""
        rows = self._connection.execute(
            "SELECT device_id, sequence, file_info FROM pending WHERE name_hash = ?", (bytes.fromhex(name_hash(name)),)
        ).fetchall()
        return [Pending(DeviceID(row[0]), row[1], _file_info(row[2])) for row in rows]

    def handled(self, device_id: DeviceID, handled_too: Collection[int] = ()) -> IndexState:
        """Up to where a device's index is fully handled, if the sequence numbers in `handled_too` are as well."""
        received = self.received(device_id)
        for sequence in self._sequences(device_id):
            if sequence not in handled_too:
                return IndexState(received.index_id, sequence - 1)
        return received

    def devices(self) -> list[DeviceID]:
        """All devices of which some index has arrived."""
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

    def _delete(self, device_id: DeviceID, key: str, sequence: int | None = None) -> None:
        row = self._connection.execute(
            "DELETE FROM pending WHERE device_id = ?1 AND name_hash = ?2 AND (?3 IS NULL OR sequence = ?3) "
            "RETURNING size",
            (device_id.raw, bytes.fromhex(key), sequence),
        ).fetchone()
        if row is not None:
            self._files -= 1
            self._bytes -= row[0]

    def _count(self) -> None:
        rows = self._connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM pending")
        self._files, self._bytes = rows.fetchone()


def _file_info(raw: bytes) -> FileInfo:
    return FileInfo(raw, pb.FileInfo.FromString(raw))
