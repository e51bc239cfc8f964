"""Claims, dissents and what devices have declined, in a folder's state (docs/format.md, "Checkpoints").

Most names have no row in any of these tables: they have one version, and its source claims it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.claims import Claims, Declined
from untrusted_s3.index.database import Database
from untrusted_s3.index.devices import Devices
from untrusted_s3.index.dissent_counts import DissentCounts, Dissents, DissentsOf
from untrusted_s3.index.entry import DISSENT_COLUMNS, Entry, kind_of, read_row
from untrusted_s3.index.row import Row, RowClaims, VersionKey, read_claims

# Claims to the current version are kept of devices up to this number: a bit each of an integer of SQLite.
MAX_CLAIMING: Final = 62
# The devices that claim the current version of a row of `files` where the table has no row of it.
_BY_SOURCE = (
    "iif(source BETWEEN 1 AND 62 AND files.sequence > (SELECT void_until FROM devices WHERE devices.number = source),"
    " 1 << (source - 1), 0)"
)
_CONFIRM = f"""
INSERT INTO claims SELECT sequence, {_BY_SOURCE} | ?3 FROM files WHERE sequence BETWEEN ?1 AND ?2
ON CONFLICT (sequence) DO UPDATE SET devices = devices | ?3
"""  # noqa: S608


class ClaimTables:
    """The tables `claims`, `dissents` and `declined` of a state."""

    def __init__(self, connection: Database, devices: Devices) -> None:
        self._connection = connection
        self._devices = devices
        self._counts = DissentCounts()
        self._counts_before = self._counts
        # Of how many names the current version was declined, by anybody and by the number of each device. Devices that
        # are only away decline nothing, so these are few, and counted when they are asked for and have changed.
        self._declined: tuple[int, dict[int, int]] | None = None
        for claimed, dissents in connection.execute("SELECT claimed, count(*) FROM dissents GROUP BY claimed"):
            self._counts.add(self._unpack(claimed), dissents)

    def begin(self) -> None:
        """Note that a transaction begins."""
        self._counts_before = self._counts.copied()

    def rolled_back(self) -> None:
        """Forget what was counted since `begin`: the transaction was rolled back."""
        self._counts = self._counts_before
        self._declined = None

    def counted(self, names: int, limit: int) -> Dissents:
        """Return how many dissents there are, with at most `limit` devices. `names` have any."""
        if self._declined is None:
            rows = self._connection.execute("SELECT device, count(*) FROM declined WHERE number = 0 GROUP BY device")
            of_devices = dict(rows.fetchall())
            (conflicts,) = self._connection.execute(
                "SELECT count(DISTINCT sequence) FROM declined WHERE number = 0"
            ).fetchone()
            self._declined = conflicts, of_devices
        conflicts, declined = self._declined
        devices = tuple(
            DissentsOf(self._devices.device_id(number), dissents, declined.get(number, 0))
            for number, dissents in self._counts.most(limit)
        )
        return Dissents(names, self._counts.versions, conflicts, devices, len(self._counts.of_devices))

    def put(self, sequence: int, entry: Entry) -> int:
        """Note the claims of an entry that has any. Return by how many the disputed names grow."""
        claims = entry.claims
        assert claims is not None
        number = self._devices.number
        bits = sum(_bit(number(device_id)) for device_id in claims.claimed_by)
        self._connection.execute("INSERT INTO claims VALUES (?, ?)", (sequence, bits))
        for place, dissent in enumerate(claims.dissents, 1):
            other, stored = dissent.entry, dissent.entry.stored
            source = number(other.source) if other.source is not None else None
            claimed = [number(device_id) for device_id in dissent.claimed_by]
            self._counts.add(claimed)
            self._connection.execute(
                "INSERT INTO dissents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    sequence,
                    place,
                    _pack(claimed),
                    kind_of(other.file_info.message),
                    source,
                    other.file_info.message.version.SerializeToString(),
                    stored.object_name if stored else None,
                    stored.size if stored else None,
                    stored.part_size if stored else None,
                    _pack(stored.part_crc32c) if stored else None,
                    other.file_info.raw,
                ),
            )
        if claims.declined:
            self._declined = None
        self._connection.executemany(
            "INSERT INTO declined VALUES (?, ?, ?, ?, ?, ?)",
            (
                (sequence, number(one.device_id), one.version, one.time_ms, one.times, one.shown_again)
                for one in claims.declined
            ),
        )
        return 1 if claims.dissents else 0

    def remove(self, sequence: int) -> int:
        """Remove all of a row of `files` that is gone. Return by how many the disputed names shrink."""
        self._connection.execute("DELETE FROM claims WHERE sequence = ?", (sequence,))
        self._delete_declined("sequence = ?", sequence)
        dissents = self._connection.execute("SELECT claimed FROM dissents WHERE sequence = ?", (sequence,)).fetchall()
        if not dissents:
            return 0
        for (claimed,) in dissents:
            self._counts.remove(self._unpack(claimed))
        self._connection.execute("DELETE FROM dissents WHERE sequence = ?", (sequence,))
        return 1

    def confirm(self, number: int, sequences: range, *, disputed: bool) -> int:
        """Note that a device claims the current versions of a range of sequence numbers, those that are in use.

        `disputed` says whether any name has dissents. Return by how many the disputed names shrink.
        """
        first, last = sequences.start, sequences.stop - 1
        if number <= MAX_CLAIMING:
            self._connection.execute(_CONFIRM, (first, last, _bit(number)))
        self._delete_declined("device = ? AND sequence BETWEEN ? AND ?", number, first, last)
        return self._end_dissents(number, first, last) if disputed else 0

    def void(self, number: int, last: int, *, disputed: bool) -> int:
        """Note that a device claims nothing of what it claimed, and has declined nothing.

        `last` is the highest sequence number in use. Return by how many the disputed names shrink.
        """
        if number <= MAX_CLAIMING:
            bit = _bit(number)
            self._connection.execute("UPDATE claims SET devices = devices & ~?1 WHERE devices & ?1", (bit,))
        self._delete_declined("device = ?", number)
        return self._end_dissents(number, 1, last) if disputed else 0

    def _delete_declined(self, condition: str, *values: int) -> None:
        deleted = self._connection.execute(f"DELETE FROM declined WHERE {condition}", values)  # noqa: S608
        if deleted.rowcount:
            self._declined = None

    def _end_dissents(self, number: int, first: int, last: int) -> int:
        """End a device's claims to dissents; a dissent that nobody claims is gone."""
        shrink = 0
        rows = self._connection.execute(
            "SELECT sequence, number, claimed FROM dissents WHERE sequence BETWEEN ? AND ?", (first, last)
        ).fetchall()
        for sequence, place, claimed in rows:
            before = self._unpack(claimed)
            left = [one for one in before if one != number]
            if len(left) == len(before):
                continue
            if left:
                self._counts.end(number)
                self._connection.execute(
                    "UPDATE dissents SET claimed = ?3 WHERE sequence = ?1 AND number = ?2",
                    (sequence, place, _pack(left)),
                )
                continue
            self._counts.remove(before)
            self._connection.execute("DELETE FROM dissents WHERE sequence = ? AND number = ?", (sequence, place))
            self._delete_declined("sequence = ? AND number = ?", sequence, place)
            shrink += not self.is_disputed(sequence)
        return shrink

    def is_disputed(self, sequence: int) -> bool:
        """Return whether the name with a sequence number has dissents."""
        row = self._connection.execute("SELECT 1 FROM dissents WHERE sequence = ? LIMIT 1", (sequence,)).fetchone()
        return row is not None

    def disputed(self, after: int, last: int, limit: int = -1) -> list[int]:
        """Return the sequence numbers above `after` and up to `last` of names with dissents, in order."""
        rows = self._connection.execute(
            "SELECT DISTINCT sequence FROM dissents WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
            (after, last, limit),
        ).fetchall()
        return [row[0] for row in rows]

    def declined_long_ago(
        self, number: int, after: int, now: float, first_pause: float, longest_pause: float, limit: int
    ) -> list[int]:
        """Return the sequence numbers above `after` of names of which a device declined a version before a pause."""
        rows = self._connection.execute(
            "SELECT DISTINCT sequence FROM declined WHERE sequence > ? AND device = ? AND NOT shown_again"
            " AND time_ms / 1000.0 + min(? * (1 << min(times - 1, 30)), ?) <= ? ORDER BY sequence LIMIT ?",
            (after, number, first_pause, longest_pause, now, limit),
        ).fetchall()
        return [row[0] for row in rows]

    def claiming(self, sequence: int) -> Iterator[int]:
        """Yield the numbers of the devices that claim the current version with a sequence number."""
        row = self._connection.execute(
            "SELECT source, devices, void_until FROM files LEFT JOIN claims USING (sequence)"
            " LEFT JOIN devices ON number = source WHERE sequence = ?",
            (sequence,),
        ).fetchone()
        if row is None:
            return
        source, bits, void_until = row
        if bits is not None:
            yield from (number for number in range(1, MAX_CLAIMING + 1) if bits & _bit(number))
        elif source is not None and sequence > void_until:
            yield source

    def dissents(self, sequence: int, name: str) -> list[tuple[int, Entry]]:
        """Return number and entry of each dissent of an encrypted name, in order. `sequence` is that of the name."""
        rows = self._connection.execute(
            "SELECT number FROM dissents WHERE sequence = ? ORDER BY number", (sequence,)
        ).fetchall()
        found = ((number, self.dissent(sequence, number, name)) for (number,) in rows)
        return [(number, entry) for number, entry in found if entry is not None]

    def dissent(self, sequence: int, number: int, name: str) -> Entry | None:
        """Return the entry of a dissent of an encrypted name, or None if it is not there."""
        row = self._connection.execute(DISSENT_COLUMNS, (sequence, number)).fetchone()
        if row is None:
            return None
        try:
            entry = read_row(row)
        except (ValueError, TypeError) as error:
            raise self._connection.damaged(f"a dissent at sequence {sequence} cannot be read") from error
        if entry.file_info.name != name:
            raise self._connection.damaged(f"a dissent at sequence {sequence} has another name")
        return entry

    def sizes(self, sequence: int) -> list[tuple[int, int]]:
        """Return the number of each dissent with a sequence number, in order, and the bytes of its file info."""
        rows: list[tuple[int, int]] = self._connection.execute(
            "SELECT number, length(file_info) FROM dissents WHERE sequence = ? ORDER BY number", (sequence,)
        ).fetchall()
        return rows

    def shown(self, sequence: int, device_id: DeviceID) -> int:
        """Return what a device is shown under a sequence number: the number of a dissent, 0 for the current version."""
        claims, numbers = self.claims(sequence)
        return numbers[claims.shown(device_id)]

    def file_info(self, sequence: int, number: int) -> bytes:
        """Return the serialized file info of a dissent."""
        row = self._connection.execute(
            "SELECT file_info FROM dissents WHERE sequence = ? AND number = ?", (sequence, number)
        ).fetchone()
        raw: bytes = row[0]
        return raw

    def claims(self, sequence: int) -> tuple[RowClaims, dict[VersionKey, int]]:
        """Return the claims to the name with a sequence number, and the number of each of its versions.

        That is 0 for the current version. No file info is parsed.
        """
        device_id = self._devices.device_id
        rows = self._connection.execute(
            "SELECT 0 AS number, version, kind, content_hash, x'' FROM files WHERE sequence = ?1 UNION ALL"
            " SELECT number, version, kind, content_hash, claimed FROM dissents WHERE sequence = ?1 ORDER BY number",
            (sequence,),
        ).fetchall()
        versions: dict[int, VersionKey] = {}
        claimed: dict[DeviceID, VersionKey] = {}
        for number, vector, kind, object_name, claiming in rows:
            try:
                version = VersionKey.of_columns(pb.Vector.FromString(vector), kind, object_name)
            except (DecodeError, TypeError) as error:
                raise self._connection.damaged(f"a version at sequence {sequence} cannot be read") from error
            if version in versions.values():
                raise self._connection.damaged(f"a dissent at sequence {sequence} is there twice")
            versions[number] = version
            devices = self._unpack(claiming) if number else self.claiming(sequence)
            claimed |= {device_id(device): version for device in devices}
        if 0 not in versions:
            raise self._connection.damaged(f"sequence {sequence} is missing")
        declined: dict[DeviceID, dict[VersionKey, Declined]] = {}
        for device, number, time_ms, times, shown_again in self._connection.execute(
            "SELECT device, number, time_ms, times, shown_again FROM declined WHERE sequence = ?", (sequence,)
        ).fetchall():
            if number not in versions:
                raise self._connection.damaged(f"a dissent at sequence {sequence} is missing")
            noted = Declined(time_ms / 1000, times, bool(shown_again))
            declined.setdefault(device_id(device), {})[versions[number]] = noted
        dissents = tuple(version for number, version in versions.items() if number)
        claims = Claims(versions[0], claimed, dissents, declined)
        return claims, {version: number for number, version in versions.items()}

    def has(self, sequence: int, entry: Entry) -> bool:
        """Return whether the name with a sequence number has the claims of an entry, as far as they are kept."""
        wanted, entries = read_claims(entry)
        row = self.row(sequence, replace(entry, claims=None))
        if row.claims.dissents != wanted.dissents or row.claims.declined != wanted.declined:
            return False
        if any(entries[version] != row.entries[version] for version in wanted.dissents):
            return False
        return self._kept(row.claims) == self._kept(wanted)

    def _kept(self, claims: RowClaims) -> dict[DeviceID, VersionKey]:
        return {
            device_id: version
            for device_id, version in claims.claimed.items()
            if version != claims.current or self._is_kept(device_id)
        }

    def _is_kept(self, device_id: DeviceID) -> bool:
        number = self._devices.find(device_id)
        return (number if number is not None else self._devices.count() + 1) <= MAX_CLAIMING

    def row(self, sequence: int, entry: Entry) -> Row:
        """Return the whole row with a sequence number, of which `entry` is the current version."""
        claims, numbers = self.claims(sequence)
        entries: dict[VersionKey, Entry] = {}
        by_number = dict(self.dissents(sequence, entry.file_info.name))
        for version, number in numbers.items():
            entries[version] = by_number.get(number, entry)
            if VersionKey.of_entry(entries[version]) != version:
                raise self._connection.damaged(f"sequence {sequence} has another version than its file info")
        return Row(sequence, entry, claims, entries)

    def _unpack(self, claimed: bytes) -> list[int]:
        try:
            return list(_unpack(claimed))
        except (TypeError, struct.error) as error:
            raise self._connection.damaged("the devices that claim a dissent cannot be read") from error


def _bit(number: int) -> int:
    return 1 << (number - 1) if number <= MAX_CLAIMING else 0


def _pack(numbers: Iterable[int]) -> bytes:
    some = list(numbers)
    return struct.pack(f">{len(some)}I", *some)


def _unpack(raw: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(raw) // 4}I", raw)
