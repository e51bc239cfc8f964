"""How many dissents a folder has, and of which devices, for people to see (index/claims.py)."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from untrusted_s3.bep.device_id import DeviceID


class DissentsOf(NamedTuple):
    """The dissents of a device.

    Attributes:
        dissents: How many it claims.
        conflicts: Of how many names it has declined the current version.
    """

    device_id: DeviceID
    dissents: int
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Dissents:
    """The dissents of a folder. A device that was away has dissents, too.

    Attributes:
        names: How many names have any.
        versions: How many there are.
        conflicts: Of how many names a device has declined the current version: it was connected, and stays with its
            own.
        of_devices: The devices that claim the most.
        devices: How many devices claim any.
    """

    names: int = 0
    versions: int = 0
    conflicts: int = 0
    of_devices: tuple[DissentsOf, ...] = ()
    devices: int = 0


@dataclass(slots=True)
class DissentCounts:
    """The counts, kept up to date with each change of a state: counting is too slow to be done again and again.

    Attributes:
        versions: How many dissents there are.
        of_devices: By the number of each device, how many it claims.
    """

    versions: int = 0
    of_devices: Counter[int] = field(default_factory=Counter)

    def add(self, claiming: Iterable[int], dissents: int = 1) -> None:
        """Count dissents that these devices claim."""
        self.versions += dissents
        for number in claiming:
            self.of_devices[number] += dissents

    def remove(self, claiming: Iterable[int]) -> None:
        """Count a dissent no more that these devices have claimed."""
        self.versions -= 1
        for number in claiming:
            self.end(number)

    def end(self, number: int) -> None:
        """Count one less of a device, which no longer claims a dissent that others still do."""
        self.of_devices[number] -= 1
        if not self.of_devices[number]:
            del self.of_devices[number]

    def most(self, limit: int) -> list[tuple[int, int]]:
        """Return the numbers of the devices that claim the most, at most `limit`, and how many."""
        return heapq.nsmallest(limit, self.of_devices.items(), key=lambda item: (-item[1], item[0]))

    def copied(self) -> Self:
        """Return a copy."""
        found = copy(self)
        found.of_devices = self.of_devices.copy()
        return found
