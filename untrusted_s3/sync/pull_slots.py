"""How much may be under way at once, shared fairly between the devices that announce it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from untrusted_s3.accounts import Account, Share
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.pending import Pending
from untrusted_s3.settings import SyncSettings


@dataclass(slots=True)
class DeviceSlots:
    """What a folder has under way of one device.

    Attributes:
        small: Files that are written by a single PUT.
        large: Larger files.
        entries: Entries that are being pulled or wait for the log.
        memory: The bytes of their parsed file infos; those of larger files have `large_memory`.
        large_memory: The bytes of the parsed file infos of larger files.
        waiting: Larger files that wait for their turn.
        most_waiting: How many of these there may be.
        memory_awaited: Whether a task waits for memory.
    """

    small: Share
    large: Share
    entries: Share
    memory: Share
    large_memory: Share
    most_waiting: int
    waiting: deque[Pending] = field(default_factory=deque)
    memory_awaited: bool = False

    @property
    def has_room(self) -> bool:
        """Whether another entry may be taken into work."""
        return self.small.fits(1) and self.entries.fits(1) and len(self.waiting) < self.most_waiting


@dataclass(slots=True)
class EntryInWork:
    """An entry that is being pulled or waits for the log.

    Attributes:
        index_id: The id of the folder's index when it was announced.
        slots: The slots of its device.
        memory: What counts the memory of its file info.
        size: The bytes of that.
        trusted: Whether the device is trusted.
    """

    index_id: int
    slots: DeviceSlots
    memory: Share
    size: int = 0
    trusted: bool = True


class PullSlots:
    """The slots of one folder, by device.

    `memory` and `large_memory` count parsed file infos over all folders: those of larger files apart, because a very
    large file takes days and must not hold up all others of its device.
    """

    def __init__(self, settings: SyncSettings, memory: Account, large_memory: Account) -> None:
        self._small = Account.of_slots(settings.concurrent_small_files)
        self._large = Account.of_slots(settings.concurrent_large_files)
        self._entries = Account.of_slots(settings.entries_in_work)
        self._memory = memory
        self._large_memory = large_memory
        self._most_waiting = settings.queued_large_files
        self._devices: dict[DeviceID, DeviceSlots] = {}

    def allow_small_files(self, most: int) -> None:
        """Set how many files of one device that are written by a single PUT may be under way."""
        self._small.capacity = Account.capacity_of_slots(most)

    def of(self, device_id: DeviceID) -> DeviceSlots:
        """Return the slots of a device."""
        slots = self._devices.get(device_id)
        if slots is None:
            slots = self._devices[device_id] = DeviceSlots(
                self._small.share(device_id),
                self._large.share(device_id),
                self._entries.share(device_id),
                self._memory.share(device_id),
                self._large_memory.share(device_id),
                self._most_waiting,
            )
        return slots

    def close(self) -> None:
        """Release everything. The slots must not be used after that."""
        for slots in self:
            for share in (slots.small, slots.large, slots.entries, slots.memory, slots.large_memory):
                share.close()
        self._devices.clear()

    def __iter__(self) -> Iterator[DeviceSlots]:
        return iter(list(self._devices.values()))

    @property
    def memory_used(self) -> int:
        """The bytes of the parsed file infos of this folder that are in work."""
        return sum(slots.memory.used + slots.large_memory.used for slots in self._devices.values())
