"""The pending index: for each peer, the announced entries that the folder does not have yet.

No copy of a peer's index is kept. The index is a local file, so that a restart continues where it was. Without it,
peers send again what lies beyond their cursors in the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from untrusted_s3.accounts import Account, Share
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import FileInfoRefused, StateDamaged
from untrusted_s3.index.announced import Announced as Announced
from untrusted_s3.index.announced import Pending as Pending
from untrusted_s3.index.announced import held_size as held_size
from untrusted_s3.index.database import WAL_KEPT, open_database, wal_size
from untrusted_s3.index.parsed import ParsedFileInfos
from untrusted_s3.index.pending_schema import PENDING_SCHEMA, PENDING_VERSION
from untrusted_s3.index.refused import Refused, RefusedFiles
from untrusted_s3.store.layout import name_key

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
# Whom the write-ahead logs of all folders are counted for.
_WAL_OWNER = "write-ahead logs"
_EMPTIED_AT_ONCE = 200
# How many hashes of names a query has.
_NAMES_AT_ONCE = 500
_FREED_PAGES = 500
# A version has one counter, of some bytes; a peer that sends longer ones gets smaller batches.
_BATCH_VERSIONS_SIZE = 1024 * 1024
# Sequence number, size of the data, and bytes on the disk of an entry.
_Known = tuple[int, int, int]
_NO_ENTRY = (0, 0, 0)
_Row = tuple[bytes, bytes, int, bytes, str | None, int, int, bytes]
_AFTER_ALL_KEYS = b"\xff" * 17


class PendingIndex:
    """The pending entries of one folder.

    A file info that breaks a rule is left out and noted as refused. A device's cursor does not pass it, and after a
    restart the device is asked for it again: perhaps this program has other limits then.

    Attributes:
        path: The local file.
        refused: What is left out of devices' indexes.
    """

    def __init__(
        self,
        path: Path,
        on_damage: Callable[[], None] = lambda: None,
        parsed: Account | None = None,
        disk: Account | None = None,
    ) -> None:
        """Open the file, or make an empty one. Raises StateFolderUnusable.

        `parsed` bounds the file infos that stay in memory after they were added. `disk` counts the bytes on the local
        disk by device, and those of the write-ahead log above WAL_KEPT. All methods raise StateDamaged, after a call of
        `on_damage`, when the file turns out to be damaged.
        """
        self.path = path
        self._connection = open_database(path, PENDING_SCHEMA, PENDING_VERSION, shrinks=True)
        self._connection.on_damage = on_damage
        self._parsed = ParsedFileInfos(parsed if parsed is not None else Account(0))
        self._disk = disk if disk is not None else Account(1 << 62)
        self._held: dict[bytes, Share] = {}
        # What the table `received` says of devices that were asked for: the status shows it of all that are connected.
        self._received: dict[bytes, IndexState] = {}
        self.refused = RefusedFiles()
        self._noted: set[bytes] = set()  # the devices in the table
        self._ask_again()
        self._folder_index_id = int(self._connection.execute("SELECT index_id FROM folder").fetchone()[0])
        self._files, self._bytes = self._connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM (SELECT max(size) AS size FROM pending GROUP BY name_hash)"
        ).fetchone()
        self._wal = self._disk.share(_WAL_OWNER)
        for device, held in self._connection.execute("SELECT device_id, bytes FROM held").fetchall():
            self._count({device: held})

    @property
    def totals(self) -> tuple[int, int]:
        """The number of pending names, and the bytes of their data.

        A name that several devices announce counts once, with the largest of its sizes.
        """
        return self._files, self._bytes

    def close(self) -> None:
        """Close the file."""
        self._parsed.clear()
        for share in self._held.values():
            share.close()
        self._held.clear()
        self._wal.close()
        self._connection.close()

    def has_room(self, device_id: DeviceID, size: int) -> bool:
        """Return whether file infos of `size` bytes in all may be added for a device."""
        share = self._share(device_id.raw)
        if not share.fits(size):
            self.tidy()
        return share.fits(size)

    def tidy(self) -> None:
        """Give the room of a write-ahead log above WAL_KEPT back to the file system."""
        if self._wal.used:
            self._truncate_wal()
            self._count_wal()

    def _truncate_wal(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def held_by(self, device_id: DeviceID) -> int:
        """Return about how many bytes of the local disk a device's entries of this folder take."""
        return self._share(device_id.raw).used

    def received(self, device_id: DeviceID) -> IndexState:
        """Return how much of a device's index has arrived here, handled or pending."""
        known = self._received.get(device_id.raw)
        if known is None:
            row = self._connection.execute(
                "SELECT index_id, sequence FROM received WHERE device_id = ?", (device_id.raw,)
            ).fetchone()
            known = self._received[device_id.raw] = IndexState(int(row[0]), row[1]) if row else IndexState()
        return known

    @property
    def folder_index_id(self) -> int:
        """The id of the folder's index to which this belongs: `FolderState.index_id` at the last `clear`."""
        return self._folder_index_id

    def clear(self, folder_index_id: int) -> None:
        """Forget everything: all devices have to send their whole indexes."""
        for device_id in self.devices():
            self.start(device_id, IndexState())
        # Last, so that a crash before leaves something to do.
        self._connection.execute("UPDATE folder SET index_id = ?", (folder_index_id,))
        self._folder_index_id = folder_index_id

    def start(self, device_id: DeviceID, state: IndexState) -> None:
        """Drop what is pending from a device; its index is known up to `state`."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            files, size = self._files, self._bytes
            if self._connection.execute(_HAS_OTHERS, (device_id.raw,)).fetchone()[0]:
                files, size = self._connection.execute(_ONLY_OF_DEVICE, (device_id.raw,)).fetchone()
            self._connection.execute("DELETE FROM pending WHERE device_id = ?", (device_id.raw,))
            self._connection.execute("DELETE FROM refused WHERE device_id = ?", (device_id.raw,))
            self._connection.execute("DELETE FROM noted WHERE device_id = ?", (device_id.raw,))
            self._connection.execute("DELETE FROM held WHERE device_id = ?", (device_id.raw,))
            self._set_received(device_id, state)
        self._apply([(-files, -size)])
        self._count({device_id.raw: -self.held_by(device_id)})
        self._parsed.drop(device_id)
        self.refused.drop(device_id)

    def ask_again_from(self, device_id: DeviceID, sequence: int) -> None:
        """Note that entries of a device's index from a sequence number on were not taken: they have to come again."""
        self._received.pop(device_id.raw, None)
        self._connection.execute(
            "UPDATE received SET sequence = min(sequence, ?) WHERE device_id = ?", (max(sequence - 1, 0), device_id.raw)
        )

    async def empty(self, device_id: DeviceID) -> None:
        """Drop what is pending from a device, piece by piece; nothing of its index is known then.

        `start` afterwards has nothing to do that takes long.
        """
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM refused WHERE device_id = ?", (device_id.raw,))
            self._connection.execute("DELETE FROM noted WHERE device_id = ?", (device_id.raw,))
            self._set_received(device_id, IndexState())
        self._parsed.drop(device_id)
        self.refused.drop(device_id)
        more = True
        while more:
            more = self._drop_some(device_id.raw)
            await asyncio.sleep(0)

    async def forget(self, device_id: DeviceID) -> None:
        """Drop all that is known of a device."""
        await self.empty(device_id)
        self._received.pop(device_id.raw, None)
        with self._connection:
            self._connection.execute("DELETE FROM received WHERE device_id = ?", (device_id.raw,))
        self.tidy()

    def _drop_some(self, device: bytes) -> bool:
        """Drop some of a device's entries, and give their room to the file system. Return whether there are more."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            found = self._connection.execute(
                "SELECT name_hash, held FROM pending WHERE device_id = ? LIMIT ?", (device, _EMPTIED_AT_ONCE)
            ).fetchall()
            before = self._entries([key for key, _ in found])
            changes = [_change(before[key], {device: None}) for key, _ in found]
            self._connection.executemany(
                "DELETE FROM pending WHERE device_id = ? AND name_hash = ?", [(device, key) for key, _ in found]
            )
            held = {device: -sum(size for _, size in found)}
            self._note_held(held)
        self._apply(changes)
        self._count(held)
        self._connection.executescript(f"PRAGMA incremental_vacuum({_FREED_PAGES})")  # `execute` frees one page
        return len(found) == _EMPTIED_AT_ONCE

    def add(
        self,
        device_id: DeviceID,
        state: IndexState,
        wanted: Sequence[Announced],
        unwanted: Iterable[str],
        refused: Sequence[FileInfoRefused] = (),
        noted: int | None = None,
    ) -> list[Refused]:
        """Take in an index message of a device, after which its index is known up to `state`.

        `wanted` becomes pending; the names in `unwanted` and `refused` are no longer pending from this device. A name
        is in one of the three only. From the sequence number `noted` on, `unwanted` has something that is in memory
        only until `noted_is_written`. Return the files that were not refused before.
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
            before = self._entries([*infos, *gone])
            changes = [_change(before[row[1]], {device: row[5]}) for row in rows]
            changes += [_change(before[key], {device: None}) for key in gone]
            held = {device: sum(row[6] for row in rows) - sum(_held(entries, device) for entries in before.values())}
            self._note_held(held)
            self._connection.executemany(
                "DELETE FROM pending WHERE device_id = ? AND name_hash = ?", [(device, key) for key in gone]
            )
            self._connection.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._set_received(device_id, state)
            if noted is not None:
                self._connection.execute(
                    "INSERT INTO noted VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sequence = min(sequence, ?2)",
                    (device, noted),
                )
                self._noted.add(device)
            if self.refused.first(device_id) != first_refused:
                self._set_refused(device_id)
        self._apply(changes)
        self._count(held)
        for key in gone:
            self._parsed.take(device_id, key)
        for key, announced in infos.items():
            self._parsed.put(device_id, key, announced.file_info)
        return new

    def noted_is_written(self, unless: Container[DeviceID]) -> None:
        """Note that the log has what was in memory only, except of some devices."""
        for device in [one for one in self._noted if DeviceID(one) not in unless]:
            self._connection.execute("DELETE FROM noted WHERE device_id = ?", (device,))
            self._noted.discard(device)

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
            held: dict[bytes, int] = {}
            known = self._entries(list(by_name))
            for key, handled in by_name.items():
                there = known[key]
                same = [entry for entry in handled if there.get(entry.device_id.raw, _NO_ENTRY)[0] == entry.sequence]
                changes.append(_change(there, {entry.device_id.raw: None for entry in same}))
                gone += same
                for entry in same:
                    held[entry.device_id.raw] = held.get(entry.device_id.raw, 0) - _held(there, entry.device_id.raw)
                if len(same) == len(there):
                    done.add(key)
            self._connection.executemany(
                "DELETE FROM pending WHERE device_id = ? AND name_hash = ?",
                [(entry.device_id.raw, entry.name_hash) for entry in gone],
            )
            self._note_held(held)
        self._apply(changes)
        self._count(held)
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
        return self.of_names((key,))[key]

    def of_names(self, keys: Sequence[bytes]) -> dict[bytes, list[Pending]]:
        """Return what `of_name` returns for each of the names with these hashes."""
        found: dict[bytes, list[Pending]] = {key: [] for key in keys}
        for row in self._of_names(f"device_id, {_COLUMNS}", list(found)):
            found[row[1]].append(Pending(DeviceID(row[0]), *row[1:]))
        return found

    def file_info(self, entry: Pending) -> FileInfo | None:
        """Return the file info of an entry: once as it was added, then parsed again each time.

        None when the device has announced something else under the name since.
        """
        try:
            return self.file_info_reader(entry)()
        except StateDamaged as error:
            raise self._connection.damaged(str(error)) from error

    def file_info_reader(self, entry: Pending) -> Callable[[], FileInfo | None]:
        """Return a function that gives what `file_info` returns, also in a thread.

        It raises StateDamaged without a call of `on_damage`.
        """
        file_info = self._parsed.take(entry.device_id, entry.name_hash, entry.sequence)
        if file_info is not None:
            return lambda: file_info
        row = self._connection.execute(
            "SELECT file_info FROM pending WHERE device_id = ? AND name_hash = ? AND sequence = ?",
            (entry.device_id.raw, entry.name_hash, entry.sequence),
        ).fetchone()
        if row is None:
            return lambda: None
        return partial(_parsed, row[0], entry.sequence)

    def damaged(self, what: str) -> None:
        """Note that the file turned out to be damaged."""
        self._connection.damaged(what)

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
        self._received.pop(device_id.raw, None)  # and not replaced: the transaction may fail
        self._connection.execute(
            "INSERT OR REPLACE INTO received VALUES (?, ?, ?)", (device_id.raw, str(state.index_id), state.max_sequence)
        )

    def _set_refused(self, device_id: DeviceID) -> None:
        first = self.refused.first(device_id)
        if first is None:
            self._connection.execute("DELETE FROM refused WHERE device_id = ?", (device_id.raw,))
        else:
            self._connection.execute("INSERT OR REPLACE INTO refused VALUES (?, ?)", (device_id.raw, first))

    def _ask_again(self) -> None:
        """Have the devices send again what was refused, and what was in memory only."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for device, first in self._connection.execute(
                "SELECT device_id, sequence FROM refused UNION ALL SELECT device_id, sequence FROM noted"
            ).fetchall():
                self._connection.execute(
                    "UPDATE received SET sequence = min(sequence, ?) WHERE device_id = ?", (max(first - 1, 0), device)
                )
            self._connection.execute("DELETE FROM refused")
            self._connection.execute("DELETE FROM noted")

    def _entries(self, keys: Sequence[bytes]) -> dict[bytes, dict[bytes, _Known]]:
        """Return sequence number, size, and bytes on the disk of the entries of each name, by device."""
        found: dict[bytes, dict[bytes, _Known]] = {key: {} for key in keys}
        for key, device, *known in self._of_names("name_hash, device_id, sequence, size, held", list(found)):
            found[key][device] = tuple(known)
        return found

    def _of_names(self, columns: str, keys: Sequence[bytes]) -> Iterator[Any]:
        """Yield columns of all entries of the names with these hashes, all different; many names a statement."""
        for start in range(0, len(keys), _NAMES_AT_ONCE):
            some = keys[start : start + _NAMES_AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT {columns} FROM pending WHERE name_hash IN ({places})"  # noqa: S608
            yield from self._connection.execute(query, some).fetchall()

    def _note_held(self, changes: Mapping[bytes, int]) -> None:
        self._connection.executemany(
            "INSERT INTO held VALUES (?1, ?2) ON CONFLICT (device_id) DO UPDATE SET bytes = bytes + ?2",
            [(device, change) for device, change in changes.items() if change],
        )

    def _count(self, changes: Mapping[bytes, int]) -> None:
        for device, change in changes.items():
            share = self._share(device)
            if change > 0:
                share.charge(change)
            else:
                share.release(min(-change, share.used))

        self._count_wal()

    def _count_wal(self) -> None:
        change = max(wal_size(self.path) - WAL_KEPT, 0) - self._wal.used
        if change > 0 and self._disk.used + change > self._disk.capacity:
            self._truncate_wal()
            change = -self._wal.used
        if change > 0:
            self._wal.charge(change)
        else:
            self._wal.release(-change)

    def _share(self, device: bytes) -> Share:
        share = self._held.get(device)
        if share is None:
            share = self._held[device] = self._disk.share(DeviceID(device))
        return share

    def _apply(self, changes: Iterable[tuple[int, int]]) -> None:
        for files, size in changes:
            self._files += files
            self._bytes += size


def _parsed(raw: bytes, sequence: int) -> FileInfo:
    try:
        return FileInfo(raw, pb.FileInfo.FromString(raw))
    except DecodeError as error:
        raise StateDamaged(f"pending sequence {sequence} cannot be read") from error


def _held(entries: Mapping[bytes, _Known], device: bytes) -> int:
    return entries.get(device, _NO_ENTRY)[2]


def _change(entries: Mapping[bytes, _Known], new: Mapping[bytes, int | None]) -> tuple[int, int]:
    """Return by how much the totals change when a name's entries get new sizes by device; None removes one."""
    before = {device: size for device, (_, size, _) in entries.items()}
    after = [size for size in {**before, **new}.values() if size is not None]
    return bool(after) - bool(before), max(after, default=0) - max(before.values(), default=0)


def _row(device: bytes, key: bytes, announced: Announced) -> _Row:
    message = announced.file_info.message
    size = message.size if announced.content_hash is not None else 0
    version = message.version.SerializeToString()
    held = held_size(len(announced.file_info.raw), len(version))
    return device, key, message.sequence, version, announced.content_hash, size, held, announced.file_info.raw
