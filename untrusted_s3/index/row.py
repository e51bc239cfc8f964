"""What a folder has under one name: the versions of it, and who claims which (index/claims.py).

The log and the state have entries with device IDs and numbers of dissents. The rules for claims know versions by keys.
This module has the way from one to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.claims import Claims, Declined
from untrusted_s3.index.content import content_hash
from untrusted_s3.index.entry import DeclinedVersion, Dissent, Entry, EntryClaims


@dataclass(frozen=True, slots=True)
class VersionKey:
    """What two announcements of one name have in common if they are the same version.

    Attributes:
        number: The sum of the counters of the version vector. An encrypted file info has one counter.
        kind: The type: FILE or DIRECTORY.
        deleted: Whether it is a deletion.
        content: The content hash of a file with data, else empty.
    """

    number: int
    kind: int
    deleted: bool
    content: str

    @classmethod
    def of(cls, file_info: FileInfo) -> VersionKey:
        """Return the key of an announced version."""
        message = file_info.message
        number = sum(counter.value for counter in message.version.counters)
        content = content_hash(file_info) if file_info.has_data else ""
        return cls(number, message.type, message.deleted, content)


RowClaims = Claims[DeviceID, VersionKey]


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

    @property
    def whole_entry(self) -> Entry:
        """The entry for the log that makes this row."""
        return self.entry_with(self.claims)

    def shown(self, device_id: DeviceID) -> Entry:
        """Return the version that a device is shown."""
        return self.entries[self.claims.shown(device_id)]


def entry_with(claims: RowClaims, entries: Iterable[Entry]) -> Entry:
    """Return the entry for the log that gives a name these claims. `entries` are those of its versions, at least."""
    by_version = {VersionKey.of(entry.file_info): replace(entry, claims=None) for entry in entries}
    current = by_version[claims.current]
    claimed_by = _claiming(claims, claims.current)
    if not claims.dissents and not any(claims.declined.values()):
        only_source = (current.source,) if current.source is not None else ()
        if claimed_by == only_source:
            return current
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


def _claiming(claims: RowClaims, version: VersionKey) -> tuple[DeviceID, ...]:
    return tuple(sorted(device_id for device_id, claimed in claims.claimed.items() if claimed == version))


def read_claims(entry: Entry) -> tuple[RowClaims, dict[VersionKey, Entry]]:
    """Return the claims that an entry of the log makes, and the entries of its versions by their keys."""
    current = VersionKey.of(entry.file_info)
    entries = {current: replace(entry, claims=None)}
    if entry.claims is None:
        return Claims(current, {entry.source: current} if entry.source is not None else {}), entries
    claimed = dict.fromkeys(entry.claims.claimed_by, current)
    versions = [current]
    for dissent in entry.claims.dissents:
        version = VersionKey.of(dissent.entry.file_info)
        entries[version] = dissent.entry
        versions.append(version)
        claimed |= dict.fromkeys(dissent.claimed_by, version)
    declined: dict[DeviceID, dict[VersionKey, Declined]] = {}
    for one in entry.claims.declined:
        noted = Declined(one.time_ms / 1000, one.times, one.shown_again)
        declined.setdefault(one.device_id, {})[versions[one.version]] = noted
    return Claims(current, claimed, tuple(versions[1:]), declined), entries
