"""A folder's names and claims as docs/format.md, "Applying", says, in plain Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.claims import Claims, Declined
from untrusted_s3.index.entry import Confirmation, Entry, NamedObject, PeerCursor
from untrusted_s3.index.row import DisputedName, Row, VersionKey
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

# Of how many devices the claims to current versions are kept.
KEPT = 62


@dataclass(slots=True)
class ModelRow:
    """What a name has. The first version is the current one; `numbered` says whether only low numbers are kept."""

    sequence: int
    versions: list[Entry]
    claimed: list[set[DeviceID]]
    declined: dict[tuple[DeviceID, VersionKey], Declined] = field(default_factory=dict)
    numbered: bool = False


@dataclass(slots=True)
class Model:
    """What segments make of a folder."""

    sequence: int = 0
    rows: dict[bytes, ModelRow] = field(default_factory=dict)
    devices: list[DeviceID] = field(default_factory=list)
    indexes: dict[DeviceID, int] = field(default_factory=dict)
    cursors: dict[DeviceID, IndexState] = field(default_factory=dict)

    def apply(self, segment: Segment) -> None:
        """Apply the next segment."""
        if segment.renewal is not None:
            self.cursors.clear()
            for removal in segment.renewal.removals:
                self.rows.pop(removal.name_hash, None)
        for cursor in segment.cursors:
            self._is_kept(cursor.device_id)
            if self.indexes.get(cursor.device_id, cursor.index_id) != cursor.index_id:
                self._void(cursor.device_id)
            self.indexes[cursor.device_id] = cursor.index_id
        for confirmation in segment.confirmations:
            self._confirm(confirmation)
        for entry in segment.entries:
            self.sequence += 1
            before = self.rows.get(name_key(entry.file_info.name))
            self._put(entry)
            if entry.claims is None and segment.renewal is None and before is not None:
                self._keep_others(before, entry)
        for cursor in segment.cursors:
            self._move(cursor)

    def _is_kept(self, device_id: DeviceID) -> bool:
        if device_id not in self.devices:
            self.devices.append(device_id)
        return self.devices.index(device_id) < KEPT

    def _put(self, entry: Entry) -> None:
        plain = replace(entry, claims=None)
        source = {entry.source} if entry.source is not None and (self._is_kept(entry.source) or True) else set()
        row = ModelRow(self.sequence, [plain], [source])
        if entry.claims is not None:
            row.numbered = True
            row.claimed = [{one for one in entry.claims.claimed_by if self._is_kept(one)}]
            for dissent in entry.claims.dissents:
                for one in (dissent.entry.source, *dissent.claimed_by):
                    if one is not None:
                        self._is_kept(one)
                row.versions.append(dissent.entry)
                row.claimed.append(set(dissent.claimed_by))
            for declined in entry.claims.declined:
                self._is_kept(declined.device_id)
                version = VersionKey.of(row.versions[declined.version].file_info)
                noted = Declined(declined.time_ms / 1000, declined.times, declined.shown_again)
                row.declined[declined.device_id, version] = noted
        self.rows[name_key(entry.file_info.name)] = row

    def _keep_others(self, before: ModelRow, entry: Entry) -> None:
        """Give an entry without claims what other devices than its source claim and have declined of the name."""
        others = [{one for one in some if one != entry.source} for some in before.claimed]
        if not any(others):
            return
        row = self.rows[name_key(entry.file_info.name)]
        row.numbered = True
        own = VersionKey.of(entry.file_info)
        for version, some in zip(before.versions, others, strict=True):
            if VersionKey.of(version.file_info) == own:
                row.claimed[0] |= some
            elif some:
                row.versions.append(version)
                row.claimed.append(some)
        row.claimed[0] = {one for one in row.claimed[0] if self._is_kept(one)}
        known = {VersionKey.of(version.file_info) for version in row.versions}
        row.declined = {
            (one, version): noted
            for (one, version), noted in before.declined.items()
            if one != entry.source and version in known
        }

    def _void(self, device_id: DeviceID) -> None:
        for row in self.rows.values():
            self._withdraw(row, device_id)
            row.claimed[0].discard(device_id)

    def _withdraw(self, row: ModelRow, device_id: DeviceID) -> None:
        """End the claims of a device to dissents, and what it has declined."""
        for claiming in row.claimed[1:]:
            claiming.discard(device_id)
        left = [0, *(number for number in range(1, len(row.versions)) if row.claimed[number])]
        row.versions, row.claimed = [row.versions[n] for n in left], [row.claimed[n] for n in left]
        known = {VersionKey.of(entry.file_info) for entry in row.versions}
        row.declined = {
            (one, version): noted
            for (one, version), noted in row.declined.items()
            if one != device_id and version in known
        }

    def _confirm(self, confirmation: Confirmation) -> None:
        device_id = confirmation.device_id
        is_kept = self._is_kept(device_id)
        for row in self.rows.values():
            if not any(row.sequence in sequences for sequences in confirmation.sequences):
                continue
            self._withdraw(row, device_id)
            if is_kept:
                row.numbered = True
                row.claimed[0] = {one for one in row.claimed[0] if self._is_kept(one)} | {device_id}

    def _move(self, cursor: PeerCursor) -> None:
        before = self.cursors.get(cursor.device_id)
        reached = cursor.sequence
        if before is not None and before.index_id == cursor.index_id:
            reached = max(reached, before.max_sequence)
        self.cursors[cursor.device_id] = IndexState(cursor.index_id, reached)

    def row(self, key: bytes) -> Row:
        """Return a row as a state gives it."""
        row = self.rows[key]
        versions = [VersionKey.of(entry.file_info) for entry in row.versions]
        declined: dict[DeviceID, dict[VersionKey, Declined]] = {}
        for (device_id, version), noted in row.declined.items():
            declined.setdefault(device_id, {})[version] = noted
        claimed = {one: version for version, some in zip(versions, row.claimed, strict=True) for one in some}
        claims = Claims(versions[0], claimed, tuple(versions[1:]), declined)
        return Row(row.sequence, row.versions[0], claims, dict(zip(versions, row.versions, strict=True)))

    def check(self, state: FolderState) -> None:
        """Compare all that a state says of names and claims."""
        assert state.sequence == self.sequence
        in_order = sorted(self.rows, key=lambda key: self.rows[key].sequence)
        rows = [self.row(key) for key in in_order]
        assert [state.row(key) for key in in_order] == rows
        disputed = [row for row in rows if row.claims.dissents]
        assert list(state.disputed()) == disputed
        assert state.disputed_count == len(disputed)
        claiming = Counter(
            one for row in rows for one, version in row.claims.claimed.items() if version != row.claims.current
        )
        dissents = state.dissents(1000)
        assert (dissents.names, dissents.devices) == (len(disputed), len(claiming))
        assert dissents.versions == sum(len(row.claims.dissents) for row in disputed)
        names = [DisputedName(row.sequence, name_key(row.entry.file_info.name), row.claims) for row in disputed]
        assert [state.disputed_name(sequence) for sequence in state.disputed_sequences()] == names
        after = disputed[0].sequence if disputed else 0
        assert state.disputed_sequences(after, 1) == [name.sequence for name in names[1:2]]
        assert [state.disputed_claims(name.key) for name in names] == [name.claims for name in names]
        assert {one.device_id: one.dissents for one in dissents.of_devices} == claiming
        assert [one.dissents for one in dissents.of_devices] == sorted(claiming.values(), reverse=True)
        staying = [
            (row.sequence, one)
            for row in rows
            for one in row.claims.declined
            if row.claims.current in row.claims.declined_by(one)
        ]
        assert dissents.conflicts == len({sequence for sequence, _ in staying})
        for found in dissents.of_devices:
            assert found.conflicts == sum(one == found.device_id for _, one in staying)
        assert list(state.file_infos_after(0, -1)) == [(row.sequence, row.entry.file_info.raw) for row in rows]
        for device_id in self.devices:
            shown = [(row.sequence, row.entries[row.claims.shown(device_id)].file_info.raw) for row in rows]
            assert list(state.file_infos_after(0, -1, device_id)) == shown
            assert state.cursor(device_id) == self.cursors.get(device_id, IndexState())
        objects: list[NamedObject] = []
        for key, row in zip(in_order, rows, strict=True):
            current = row.claims.current
            those = {one for one, version in row.claims.claimed.items() if version == current}
            assert state.claimed_by(row.sequence) == those
            assert {one for one in self.devices if state.is_claimed(one, row.sequence)} == those
            assert state.versions(row.entry.file_info.name) == tuple(row.entries.values())
            named = dict.fromkeys(filter(None, map(NamedObject.of, row.entries.values())))
            assert state.objects_of(key) == list(named)
            stored = [version.stored for version in row.entries.values() if version.stored is not None]
            assert state.stored_objects(key) == stored
            there = state.current(key)
            assert there is not None and (there.sequence, there.key) == (row.sequence, current)
            sizes = [(0, len(row.entry.file_info.raw)), *state.dissent_sizes(row.sequence)]
            assert [size for _, size in sizes] == [len(version.file_info.raw) for version in row.entries.values()]
            for (number, _), version in zip(sizes[1:], list(row.entries.values())[1:], strict=True):
                assert state.version(row.sequence, number, version.file_info.name) == version
            objects += named
            assert state.has(row.whole_entry)
        assert set(state.objects()) == set(objects)
