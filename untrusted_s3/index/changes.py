"""Changes of what a folder has under a name. Each is worked out for the state at the end of the log.

Another gateway may have changed the name meanwhile, so a change is asked again for what it comes to with each attempt
to append.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.claims import Claims
from untrusted_s3.index.entry import Confirmation, Entry
from untrusted_s3.index.row import Row, RowClaims, VersionKey, entry_with
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

# What a change comes to: an entry, or confirmations of what the folder has, or nothing.
Outcome = Entry | Sequence[Confirmation] | None


class Change(Protocol):
    """A change of one name."""

    @property
    def key(self) -> bytes:
        """The hash of the name."""

    def __call__(self, state: FolderState) -> Outcome:
        """Return what the change comes to where the state is that of the end of the log."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Devices announce a version of a file.

    Attributes:
        entry: The version, with the object of its data.
        devices: The trusted devices that announce it; none if only untrusted devices do, which claim nothing.
        time: The time, in seconds since 1970 UTC.
        had_chance: Returns whether a device had time to take over what it is shown under a sequence number.
        gateways: The other gateways that announce it.
    """

    entry: Entry
    devices: tuple[DeviceID, ...]
    time: float
    had_chance: Callable[[DeviceID, int], bool]
    gateways: tuple[DeviceID, ...] = ()

    @property
    def key(self) -> bytes:
        """The hash of the name."""
        return name_key(self.entry.file_info.name)

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        if state.is_condemned(self.entry):
            return None
        version = VersionKey.of_entry(self.entry)
        if self._just_follows(state, version):
            return self.entry
        row = state.row(self.key)
        if row is None:
            claiming = self.devices or self.gateways[:1]
            if claiming == (self.entry.source,):
                return self.entry
            return entry_with(Claims(version, dict.fromkeys(claiming, version)), [self.entry])
        if not self._claiming:
            is_newer = version.number > row.claims.current.number
            return row.change(row.claims.replaced(version), self.entry) if is_newer else None
        claims = row.claims
        for device_id in self._claiming:
            stays = device_id not in row.claims.claimed and self.had_chance(device_id, row.sequence)
            if stays and version.has_same_content(claims.current):
                # Nothing is at risk, so the device's word is enough: a whole folder may have joined with a copy.
                claims = claims.replaced(version, device_id)
                continue
            is_gateway = device_id in self.gateways
            before = claims
            claims = before.relayed(device_id, version) if is_gateway else before.claim(device_id, version, self.time)
            if stays and device_id in claims.claimed and claims.current == row.claims.current != version:
                all_known = not state.may_be_claimed(row.entry, claims)
                claims = claims.decline(
                    device_id, claims.current, self.time, all_known=all_known, shown_again=is_gateway
                )
        # What a trusted device has said of a version is not replaced by what another gateway says of it.
        return outcome(row, claims) if not self.devices and version in row.entries else outcome(row, claims, self.entry)

    @property
    def _claiming(self) -> tuple[DeviceID, ...]:
        """The devices whose claims this may change: a gateway claims nothing that a device here claims."""
        return *self.devices, *self.gateways

    def _just_follows(self, state: FolderState, version: VersionKey) -> bool:
        """Return whether an entry without claims says it all. To see that, the entry before is not parsed."""
        if self._claiming != (self.entry.source,) or state.disputed_claims(self.key) is not None:
            return False
        current = state.current(self.key)
        return current is None or version.number > current.key.number


@dataclass(frozen=True, slots=True)
class LateConfirmation:
    """A device has confirmed what the folder had under a name, and another change came before that was written.

    Attributes:
        entry: What it has confirmed.
    """

    entry: Entry
    device_id: DeviceID

    @property
    def key(self) -> bytes:
        """The hash of the name."""
        return name_key(self.entry.file_info.name)

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        row = state.row(self.key)
        # A device that claims anything has announced that since.
        if row is None or self.device_id in row.claims.claimed or state.is_condemned(self.entry):
            return None
        return outcome(row, row.claims.claim(self.device_id, VersionKey.of_entry(self.entry)), self.entry)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A device no longer announces a name.

    Attributes:
        key: The hash of the name.
        version: What the device has claimed so far. If it claims another version, it has announced that since.
        time: The time, in seconds since 1970 UTC.
    """

    key: bytes
    device_id: DeviceID
    version: VersionKey
    time: float

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        row = state.row(self.key)
        if row is None or row.claims.claimed.get(self.device_id) != self.version:
            return None
        return outcome(row, row.claims.withdraw(self.device_id, self.time))


@dataclass(frozen=True, slots=True)
class Oblivion:
    """A device has another index than before: it has forgotten what it claimed and declined.

    Others must not be shown what it claimed, nor the device under the same sequence number something else than before.

    Attributes:
        key: The hash of the name.
        index_id: The id of its index.
    """

    key: bytes
    device_id: DeviceID
    index_id: int

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        row = state.row(self.key)
        if row is None or state.known_index(self.device_id) == self.index_id:
            return None
        return outcome(row, row.claims.forget(self.device_id))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A device had time to take over what it was shown under a sequence number, and has not.

    Attributes:
        key: The hash of the name.
        sequence: The sequence number.
        time: The time, in seconds since 1970 UTC.
        is_gateway: Whether it is another gateway, which does not decline (`Claims.relay`).
    """

    key: bytes
    device_id: DeviceID
    sequence: int
    time: float
    is_gateway: bool = False

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        row = state.row(self.key)
        if row is None or row.sequence != self.sequence:
            return None
        shown = row.claims.shown(self.device_id)
        if shown == row.claims.claimed.get(self.device_id):
            return None
        all_known = not state.may_be_claimed(row.entry, row.claims)
        if self.is_gateway:
            return outcome(row, row.claims.relay(self.device_id, self.time, all_known=all_known))
        return outcome(row, row.claims.decline(self.device_id, shown, self.time, all_known=all_known))


@dataclass(frozen=True, slots=True)
class Reminder:
    """A device is shown a version again that it declined some time ago.

    Attributes:
        key: The hash of the name.
        sequence: The sequence number under which the name was seen.
    """

    key: bytes
    device_id: DeviceID
    sequence: int
    version: VersionKey

    def __call__(self, state: FolderState) -> Outcome:
        """Return what this comes to."""
        row = state.row(self.key)
        if row is None or row.sequence != self.sequence:
            return None
        if self.version not in row.claims.declined_by(self.device_id):
            return None
        return outcome(row, row.claims.show_again(self.device_id, self.version))


def outcome(row: Row, claims: RowClaims, *others: Entry) -> Outcome:
    """Return what gives a name other claims: nothing or confirmations if that is enough."""
    if claims == row.claims:
        return None
    if claims.current == row.claims.current and claims.shows_same(row.claims):
        confirming = [
            device_id
            for device_id, version in claims.claimed.items()
            if version == claims.current != row.claims.claimed.get(device_id)
        ]
        confirmed = row.claims
        for device_id in confirming:
            confirmed = confirmed.confirm(device_id)
        if confirmed == claims:
            return [Confirmation.of(device_id, [row.sequence]) for device_id in confirming]
    return row.change(claims, *others)
