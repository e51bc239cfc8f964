"""Which version of a name a folder offers to which device (ADR 7).

A device *claims* the version that it announces. A trusted device hides its version vector: what an untrusted device
sees is one number, the sum of the vector's counters (`v2.1.3 lib/protocol/encryption.go`). The number does not tell
which of two versions wins, but devices do: one that moves from a version to another one judges that the other one wins.

Of each name there is a *current* version, which all devices are shown. A version that a device claims and that is not
the current one is a *dissent*. A device is shown each version that it does not claim, one after the other, until it
takes it over or *declines* it: it had time to take it over, and stays with what it has. Then it is shown its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

# How often a device counts as having declined a deletion that it has left for a file: it is not shown it for long.
_FOR_LONG: Final = 31
# So often another gateway is shown a dissent in turn with the current version. With the pauses that devices have, which
# begin at ten minutes and double, that takes about a day and a half.
_MOST_TURNS: Final = 8


class Numbered(Protocol):
    """A version, as far as the rules look at it."""

    @property
    def number(self) -> int:
        """The sum of the counters of the version vector."""

    @property
    def deleted(self) -> bool:
        """Whether the version is a deletion."""


Device = TypeVar("Device", bound=Hashable)
Version = TypeVar("Version", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Declined:
    """A device was shown a version and stayed with its own.

    Attributes:
        time: When that was noted, in seconds.
        times: How often.
        shown_again: Whether it is shown the version once more: perhaps it could not take it over.
    """

    time: float
    times: int = 1
    shown_again: bool = False


@dataclass(frozen=True, slots=True)
class Claims(Generic[Device, Version]):
    """The claims to one name.

    Attributes:
        current: The version that is offered first.
        claimed: The version that each device claims: the current one or a dissent.
        dissents: The other versions, the oldest dissent first. Each is claimed.
        declined: By device, the versions that it declined while it claimed what it claims now.
    """

    current: Version
    claimed: Mapping[Device, Version] = field(default_factory=lambda: MappingProxyType({}))
    dissents: tuple[Version, ...] = ()
    declined: Mapping[Device, Mapping[Version, Declined]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def versions(self) -> tuple[Version, ...]:
        """The current version and the dissents."""
        return self.current, *self.dissents

    def shown(self, device: Device) -> Version:
        """Return the version that a device is shown."""
        own = self.claimed.get(device)
        return next(self._to_show(device), own if own is not None else self.current)

    def _to_show(self, device: Device) -> Iterator[Version]:
        own = self.claimed.get(device)
        for version in self.versions:
            if version == own or self._stays_declined(device, version):
                continue
            if version == self.current or self._is_offered(version):
                yield version

    def _is_offered(self, dissent: Version) -> bool:
        """Return whether a device that claims the dissent has declined the current version, so that others judge."""
        return any(
            version == dissent and self.current in self.declined_by(device) for device, version in self.claimed.items()
        )

    def _stays_declined(self, device: Device, version: Version) -> bool:
        declined = self.declined_by(device).get(version)
        return declined is not None and not declined.shown_again

    def declined_by(self, device: Device) -> Mapping[Version, Declined]:
        """Return the versions that a device has declined."""
        return self.declined.get(device, {})

    def claim(self, device: Device, version: Version, time: float | None = None) -> Claims[Device, Version]:
        """Return the claims after a device announces a version, at a time in seconds.

        It becomes the current one if its number is larger, or if the device claimed the current one before: then the
        device judges that the new one wins, or has forgotten the one before.

        A device that leaves the current version for a dissent, or for what has a smaller number and is so not based on
        it, declines a deletion by that, as long as others claim it.
        Perhaps it has only forgotten it, as Syncthing 2 forgets old deletions. Then it would take over the deletion
        each time that it is shown it, with a conflict copy each time, and the file again once it has forgotten that.
        """
        before = self.claimed.get(device)
        if before == version:
            return self
        if before is not None and before == self.current:
            changed = self.replaced(version, device)
            is_back = version in self.dissents or version.number <= before.number
            if time is None or not (is_back and before.deleted and before in changed.dissents):
                return changed
            return replace(changed, declined={**changed.declined, device: {before: Declined(time, _FOR_LONG)}})
        current = version if version.number > self.current.number else self.current
        changed = self._with(current, {**self.claimed, device: version}, *self.versions, version)
        return changed._without_declined_by(device, for_long=before is None)

    def confirm(self, device: Device) -> Claims[Device, Version]:
        """Return the claims after a confirmation in the log: the device has the current version, declines nothing."""
        return self.claim(device, self.current)._without_declined_by(device)

    def relayed(self, gateway: Device, version: Version) -> Claims[Device, Version]:
        """Return the claims after another gateway announces a version, for the devices behind it.

        If a device here claims the version, the gateway may only say what it was shown. So it claims nothing then,
        unless that settles the name.
        """
        own = self.claimed.get(gateway)
        if own == version:
            return self
        if version == self.current and own is not None and not (settled := self.claim(gateway, version)).dissents:
            return settled
        others = [claimed for device, claimed in self.claimed.items() if device != gateway]
        if own is None and version in others:
            return self
        # Where a device here claims the current version, that the gateway leaves it says nothing of who wins.
        before = self.withdraw(gateway) if self.current in others else self
        claims = before.claim(gateway, version)
        return claims.withdraw(gateway) if version in others else claims

    def replaced(self, version: Version, device: Device | None = None) -> Claims[Device, Version]:
        """Return the claims when a version becomes the current one, which a device claims, or nobody.

        The version before, and all dissents, stay as dissents as long as other devices claim them.
        """
        claimed = dict(self.claimed) if device is None else {**self.claimed, device: version}
        changed = self._with(version, claimed, *self.versions, version)
        return changed if device is None else changed._without_declined_by(device)

    def _without_declined_by(self, device: Device, *, for_long: bool = False) -> Claims[Device, Version]:
        """Return the claims without what a device has declined, or with what it has declined `for_long` only."""
        if device not in self.declined:
            return self
        declined = {key: one for key, one in self.declined.items() if key != device}
        own = self.claimed.get(device)
        kept = {
            version: one
            for version, one in self.declined[device].items()
            if for_long and one.times >= _FOR_LONG and version != own
        }
        if kept:
            declined[device] = kept
        return replace(self, declined=declined)

    def withdraw(self, device: Device, time: float | None = None) -> Claims[Device, Version]:
        """Return the claims when a device no longer announces the name, at a time in seconds.

        A device that had the current version, a deletion, declines it by that, as long as others claim it and there are
        dissents. Perhaps it is a receive-only folder that cannot delete a directory, as there are local files in it: it
        would take over the deletion and the directory in turns.
        """
        before = self.claimed.get(device)
        if before is None:
            return self
        claimed = {other: version for other, version in self.claimed.items() if other != device}
        changed = self._with(self.current, claimed, *self.versions)._without_declined_by(device)
        if time is None or before != self.current or not before.deleted or not changed.dissents:
            return changed
        return replace(changed, declined={**changed.declined, device: {before: Declined(time, _FOR_LONG)}})

    def forget(self, device: Device) -> Claims[Device, Version]:
        """Return the claims when a device has forgotten all: it claims nothing, and has declined nothing."""
        return self.withdraw(device)._without_declined_by(device)

    def shows_same(self, other: Claims[Device, Version]) -> bool:
        """Return whether each device is shown the same version as by other claims."""
        devices = {*self.claimed, *self.declined, *other.claimed, *other.declined}
        same = self.current == other.current  # for devices that claim nothing
        return same and all(self.shown(device) == other.shown(device) for device in devices)

    def decline(
        self, device: Device, version: Version, time: float, *, all_known: bool = True, shown_again: bool = False
    ) -> Claims[Device, Version]:
        """Return the claims when a device was shown a version for long enough and has not taken it over.

        `all_known` says that no other device claims the current version than those that are known to. `shown_again`
        says that the device stays shown it, which is so for another gateway: a device behind it may come later.
        """
        before = self.declined_by(device).get(version)
        noted = Declined(time, before.times + 1 if before is not None else 1, shown_again)
        changed = replace(self, declined={**self.declined, device: {**self.declined_by(device), version: noted}})
        own = self.claimed.get(device)
        if version != self.current or own is None or self.current in self.claimed.values() or not all_known:
            return changed
        # Nobody claims the current version any more.
        return changed._with(own, self.claimed, *self.versions)

    def relay(self, gateway: Device, time: float, *, all_known: bool = True) -> Claims[Device, Version]:
        """Return the claims when another gateway was shown a version for long enough, and shows the same as before.

        It never declines: a device behind it may come at any time. What it claims is offered to the others now, and it
        stays shown what it was. If it claims nothing, it is shown a dissent that is offered, in turn with the current
        version, some times.
        """
        shown, own = self.shown(gateway), self.claimed.get(gateway)
        before = self.declined_by(gateway).get(shown)
        if own is not None:
            if shown == own or before is not None:
                return self
            return self.decline(gateway, shown, time, all_known=all_known, shown_again=True)
        has_had_its_turns = before is not None and before.times >= _MOST_TURNS
        if has_had_its_turns or len(list(islice(self._to_show(gateway), 2))) < 2:
            return self
        return self.decline(gateway, shown, time, all_known=all_known)

    def show_again(self, device: Device, version: Version) -> Claims[Device, Version]:
        """Return the claims when a device is to be shown a version again that it declined."""
        noted = replace(self.declined_by(device)[version], shown_again=True)
        return replace(self, declined={**self.declined, device: {**self.declined_by(device), version: noted}})

    def _with(self, current: Version, claimed: Mapping[Device, Version], *versions: Version) -> Claims[Device, Version]:
        left = set(claimed.values()) - {current}
        dissents = tuple(version for version in dict.fromkeys(versions) if version in left)
        kept = {current, *dissents}
        declined = {
            device: some
            for device, all_declined in self.declined.items()
            if (some := {version: one for version, one in all_declined.items() if version in kept})
        }
        return Claims(current, claimed, dissents, declined)
