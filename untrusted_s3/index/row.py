"""What a folder has under one name: the versions of it, and who claims which (index/claims.py).

The log and the state have entries with device IDs and numbers of dissents. The rules for claims know versions by keys.
This module has the way from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import is_newer, total
from untrusted_s3.index.claims import Claims, Declined
from untrusted_s3.index.content import CONTENT_HASH_SIZE, content_hash
from untrusted_s3.index.entry import (
    KIND_DELETED,
    DeclinedVersion,
    Dissent,
    Entry,
    EntryClaims,
    NamedObject,
    kind_of,
)


@dataclass(frozen=True, slots=True)
class VersionKey:
    """What two announcements of one name have in common if they are the same version.

    Attributes:
        number: The sum of the counters of the version vector. An encrypted file info has one counter.
        kind: What the name is (`index.entry.kind_of`).
        content: The content hash of a file with data, else empty.
    """

    number: int
    kind: int
    content: str

    @classmethod
    def of(cls, file_info: FileInfo) -> VersionKey:
        """Return the key of a version that a device announces."""
        content = content_hash(file_info) if file_info.has_data else ""
        return cls(total(file_info.message.version), kind_of(file_info.message), content)

    @classmethod
    def of_columns(cls, vector: pb.Vector, kind: int, object_name: str | None) -> VersionKey:
        """Return the key of a version from what a state has of it beside its file info. Raises TypeError."""
        return cls(total(vector), kind, (object_name or "")[:CONTENT_HASH_SIZE])

    @classmethod
    def of_entry(cls, entry: Entry) -> VersionKey:
        """Return the key of the version of an entry. The name of its object tells the content."""
        content = entry.stored.object_name[:CONTENT_HASH_SIZE] if entry.stored is not None else ""
        return cls(total(entry.file_info.message.version), kind_of(entry.file_info.message), content)

    @property
    def deleted(self) -> bool:
        """Whether the version is a deletion."""
        return self.kind == KIND_DELETED

    def has_same_content(self, other: VersionKey) -> bool:
        """Return whether two versions have the same data: then they differ in their metadata at most."""
        return bool(self.content) and self.content == other.content


RowClaims = Claims[DeviceID, VersionKey]


@dataclass(frozen=True, slots=True)
class CurrentVersion:
    """What a folder has under a name, without its file info.

    Attributes:
        sequence: Its sequence number.
        vector: Its version vector.
        key: What another announcement of the same version has in common with it.
    """

    sequence: int
    vector: pb.Vector
    key: VersionKey

    def is_older_than(self, vector: pb.Vector) -> bool:
        """Return whether the version with this vector is newer than it."""
        return is_newer(vector, self.vector)


class DisputedName(NamedTuple):
    """The claims to a name that has dissents.

    Attributes:
        sequence: The sequence number.
        key: The hash of the name.
        claims: The claims to it.
    """

    sequence: int
    key: bytes
    claims: RowClaims


@dataclass(frozen=True, slots=True)
class Row:
    """What a folder has under one name.

    Attributes:
        sequence: The sequence number.
        entry: The current version, without claims.
        claims: The claims to the name.
        entries: The entries of the current version and of all dissents, without claims.
    """

    sequence: int
    entry: Entry
    claims: RowClaims
    entries: Mapping[VersionKey, Entry]

    @classmethod
    def of(cls, sequence: int, entry: Entry) -> Row:
        """Return the row that an entry of the log makes."""
        claims, entries = read_claims(entry)
        return cls(sequence, replace(entry, claims=None), claims, entries)

    def entry_with(self, claims: RowClaims, *others: Entry) -> Entry:
        """Return the entry for the log that gives this name other claims.

        `others` are the entries of versions that the row does not have.
        """
        return entry_with(claims, [*self.entries.values(), *others])

    def change(self, claims: RowClaims, *others: Entry) -> Entry:
        """Return the same, as short as it can be where this row is what the log has."""
        entry = self.entry_with(claims, *others)
        source = entry.source
        follows = source is not None and self.claims.replaced(claims.current, source) == claims
        return replace(entry, claims=None) if follows else entry

    def replaced(self, entry: Entry) -> Entry:
        """Return the entry with all claims that an entry without claims stands for, where it replaces this row."""
        claims = self.claims.replaced(VersionKey.of_entry(entry), entry.source)
        return self.entry_with(claims, entry)

    @property
    def whole_entry(self) -> Entry:
        """The entry for the log that makes this row beside a renewal."""
        return shortened(self.entry_with(self.claims))

    def without_objects(self, gone: Container[NamedObject]) -> Entry | None:
        """Return the entry for the log that takes the versions with certain objects from this name.

        None if no version is left.
        """
        return self.without(lambda entry: NamedObject.of(entry) in gone)

    def without(self, is_gone: Callable[[Entry], bool]) -> Entry | None:
        """Return the entry for the log that takes versions from this name, or None if no version is left.

        The oldest dissent takes the place of a current version that is gone.
        """
        kept = [version for version in self.claims.versions if not is_gone(self.entries[version])]
        if not kept:
            return None
        claims = Claims(
            kept[0],
            {device_id: version for device_id, version in self.claims.claimed.items() if version in kept},
            tuple(kept[1:]),
            {
                device_id: {version: one for version, one in some.items() if version in kept}
                for device_id, some in self.claims.declined.items()
            },
        )
        return self.entry_with(claims)

    def with_lost(self, lost: Row) -> Entry:
        """Return the entry for the log that also has what another state of the folder knows and this one has lost.

        Those are a current version with a larger number, and dissents. A device that claims another version here keeps
        that one, unless the number of the lost one is larger: nobody can tell more, and devices that still come
        announce what they have.
        """
        claims = self.claims
        brought = set(lost.claims.dissents)
        if lost.claims.current.number > claims.current.number:
            brought.add(lost.claims.current)
            claims = claims.replaced(lost.claims.current)
        for device_id, version in lost.claims.claimed.items():
            own = claims.claimed.get(device_id)
            if version in brought and (own is None or version.number > own.number):
                claims = claims.claim(device_id, version)
        return entry_with(claims, [*lost.entries.values(), *self.entries.values()])


def entry_with(claims: RowClaims, entries: Iterable[Entry]) -> Entry:
    """Return the entry for the log that gives a name these claims, whatever the log has under it.

    `entries` are those of its versions, at least. Of two with one version, the last one counts.
    """
    by_version = {VersionKey.of_entry(entry): replace(entry, claims=None) for entry in entries}
    current = by_version[claims.current]
    claimed_by = _claiming(claims, claims.current)
    dissents = tuple(Dissent(by_version[version], _claiming(claims, version)) for version in claims.dissents)
    numbers = {version: number for number, version in enumerate(claims.versions)}
    declined = sorted(
        (
            DeclinedVersion(device_id, numbers[version], round(one.time * 1000), one.times, one.shown_again)
            for device_id, some in claims.declined.items()
            for version, one in some.items()
        ),
        key=lambda one: (one.version, one.device_id),
    )
    return replace(current, claims=EntryClaims(claimed_by, dissents, tuple(declined)))


def shortened(entry: Entry) -> Entry:
    """Return an entry without claims where that says the same of a name that has no row, or beside a renewal."""
    plain = replace(entry, claims=None)
    return plain if read_claims(plain)[0] == read_claims(entry)[0] else entry


def _claiming(claims: RowClaims, version: VersionKey) -> tuple[DeviceID, ...]:
    return tuple(sorted(device_id for device_id, claimed in claims.claimed.items() if claimed == version))


def read_claims(entry: Entry) -> tuple[RowClaims, dict[VersionKey, Entry]]:
    """Return the claims that an entry of the log makes, and the entries of its versions by their keys."""
    current = VersionKey.of_entry(entry)
    entries = {current: replace(entry, claims=None)}
    if entry.claims is None:
        return Claims(current, {entry.source: current} if entry.source is not None else {}), entries
    claimed = dict.fromkeys(entry.claims.claimed_by, current)
    versions = [current]
    for dissent in entry.claims.dissents:
        version = VersionKey.of_entry(dissent.entry)
        entries[version] = dissent.entry
        versions.append(version)
        claimed |= dict.fromkeys(dissent.claimed_by, version)
    declined: dict[DeviceID, dict[VersionKey, Declined]] = {}
    for one in entry.claims.declined:
        noted = Declined(one.time_ms / 1000, one.times, one.shown_again)
        declined.setdefault(one.device_id, {})[versions[one.version]] = noted
    return Claims(current, claimed, tuple(versions[1:]), declined), entries
