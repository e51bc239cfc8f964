"""What a folder's pulls may add to the store: quotas of the folder and of devices, and the limit of the store.

A file waits if a limit would be exceeded with it and it adds to what is counted. So a new version that is not larger
comes in over a full quota, and everything without data does. So does a file whose data the folder has already.

What waits stays in the pending index. To look at all of it again takes long where very much waits, so that is done only
when something may have got room, and then for a small part of the time, unless a limit was raised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.pending import Pending
from untrusted_s3.index.state import FolderState
from untrusted_s3.units import size_text

_logger = structlog.get_logger()


class LimitKind(Enum):
    """What a limit is for."""

    FOLDER = "folder"
    DEVICE = "device"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of what is stored.

    Attributes:
        kind: What it is for.
        size: The most bytes.
        used: The bytes that are stored or under way.
        device_id: Whose quota it is, if it is a device's.
    """

    kind: LimitKind
    size: int
    used: int
    device_id: DeviceID | None = None

    @property
    def key(self) -> tuple[LimitKind, DeviceID | None]:
        """What tells it from the other limits of a folder."""
        return self.kind, self.device_id

    @property
    def room(self) -> int:
        """The bytes that it leaves; negative where more is stored than it allows."""
        return self.size - self.used

    def __str__(self) -> str:
        size = size_text(self.size)
        if self.kind is LimitKind.STORE:
            return f"the limit of the store, {size}, is reached"
        what = f"device {self.device_id}" if self.kind is LimitKind.DEVICE else "folder"
        return f"the quota of the {what}, {size}, is reached"


LimitsOf = Callable[[DeviceID], Sequence[Limit]]
_Key = tuple[LimitKind, DeviceID | None]
# Seconds between looks at all pending entries, for each of them. A look takes about a tenth of that.
_PAUSE_OF_ENTRY: Final = 0.001


@dataclass(frozen=True, slots=True)
class _Growth:
    """By how much a file changes what is counted: of the folder and the store, and of its device."""

    folder: int
    device: int

    def of(self, limit: Limit) -> int:
        return self.device if limit.kind is LimitKind.DEVICE else self.folder

    def fits(self, limit: Limit) -> bool:
        return self.of(limit) <= max(limit.room, 0)


@dataclass(slots=True)
class _Waiting:
    """What waits of one device since all entries were looked at.

    Attributes:
        least: What every file that waits needs at least.
        seen: For each limit, its size and its room when it had the least of it.
    """

    least: _Growth
    seen: dict[_Key, tuple[int, int]] = field(default_factory=dict)

    def add(self, growth: _Growth, limits: Sequence[Limit]) -> None:
        self.least = _Growth(min(self.least.folder, growth.folder), min(self.least.device, growth.device))
        for limit in limits:
            before = self.seen.get(limit.key)
            if before is None or limit.room < before[1]:
                self.seen[limit.key] = limit.size, limit.room

    def may_fit(self, limits: Sequence[Limit]) -> bool:
        """Return whether anything of it may have room now."""
        return all(map(self.least.fits, limits))

    def has_more_room(self, limits: Sequence[Limit]) -> bool:
        """Return whether a limit leaves more room than when something was refused."""
        return any(limit.key in self.seen and limit.room > self.seen[limit.key][1] for limit in limits)

    def is_raised(self, limits: Sequence[Limit]) -> bool:
        """Return whether a limit was raised or is gone."""
        sizes = {limit.key: limit.size for limit in limits}
        return any(key not in sizes or sizes[key] > size for key, (size, _) in self.seen.items())


class FolderQuota:
    """Decides which files of one folder may be pulled, and counts what is under way.

    Attributes:
        limits_of: Returns the limits for a file of a device; none by default.
        are_known: Returns whether the limits are those of now. Where they are not, they are asked for, and
            `Puller.look_at_quota` is called when they are.
        in_work: The bytes that the pulls under way add to the folder.
        on_change: Called when it has changed how many they are.
    """

    def __init__(self, folder_id: str, state: FolderState) -> None:
        self.limits_of: LimitsOf = lambda device_id: ()
        self.are_known: Callable[[], bool] = lambda: True
        self.in_work = 0
        self.on_change: Callable[[], object] = lambda: None
        self._folder_id = folder_id
        self._state = state
        self._under_way: dict[bytes, tuple[DeviceID, _Growth]] = {}  # by name hash
        self._in_work_of: Counter[DeviceID] = Counter()
        self._waiting: dict[DeviceID, _Waiting] = {}
        # The limits for which files wait, and those of them that were seen since all entries were looked at.
        self._said: dict[_Key, Limit] = {}
        self._seen: set[_Key] = set()
        self._pending_files = 0
        self._fewer = False
        self._next_look = float("-inf")

    def in_work_of(self, device_id: DeviceID) -> int:
        """Return the bytes that the pulls under way add to what the folder has from a device."""
        return self._in_work_of[device_id]

    def reserve(self, entry: Pending, is_there: Callable[[], bool] = lambda: False) -> bool:
        """Return whether a file may be pulled. Then it counts, until `release`.

        `is_there` returns whether the folder has its data already.
        """
        limits = self.limits_of(entry.device_id)
        if not limits:
            return True
        size, source = self._state.data_of(entry.name_hash)
        growth = _Growth(entry.size - size, entry.size - (size if source == entry.device_id else 0))
        exceeded = [limit for limit in limits if not growth.fits(limit)]
        if exceeded and not is_there():
            self._wait(entry.device_id, growth, limits, exceeded)
            return False
        self._under_way[entry.name_hash] = entry.device_id, growth
        self.in_work += growth.folder
        self._in_work_of[entry.device_id] += growth.device
        self.on_change()
        return True

    def release(self, key: bytes) -> None:
        """Note that the pull of the name with this hash has ended, or did not begin."""
        if (under_way := self._under_way.pop(key, None)) is None:
            return
        device_id, growth = under_way
        self.in_work -= growth.folder
        self._in_work_of[device_id] -= growth.device
        self.on_change()

    def _wait(self, device_id: DeviceID, growth: _Growth, limits: Sequence[Limit], exceeded: Sequence[Limit]) -> None:
        # Perhaps nothing waits any more when this is looked at for the first time.
        self._fewer |= not self._said
        self._waiting.setdefault(device_id, _Waiting(growth)).add(growth, limits)
        for limit in exceeded:
            if limit.key not in self._said:
                _logger.warning("files wait for room", folder=self._folder_id, reason=str(limit))
            self._said[limit.key] = limit
            self._seen.add(limit.key)

    @property
    def reached(self) -> Sequence[Limit]:
        """The limits for which files wait."""
        return list(self._said.values())

    def look(self, pending_files: int, now: float, *, looked_at_all: bool = True) -> bool:
        """Look whether files that wait may come in now. Then the caller looks at all pending entries again.

        `pending_files` is how many names are pending: when there are fewer, perhaps none of those waits any more.
        `looked_at_all` says whether all of them were looked at since the last time that this returned True.
        """
        self._fewer |= pending_files < self._pending_files
        self._pending_files = pending_files
        if looked_at_all:
            for key in self._said.keys() - self._seen:
                _logger.info("no file waits for room any more", folder=self._folder_id, reason=str(self._said.pop(key)))
        if not looked_at_all or not self._waiting or not self._is_due(now):
            return False
        self._waiting.clear()
        self._seen.clear()
        self._fewer = False
        self._next_look = now + pending_files * _PAUSE_OF_ENTRY
        return True

    def _is_due(self, now: float) -> bool:
        raised = more_room = False
        for device_id, waiting in self._waiting.items():
            limits = self.limits_of(device_id)
            self._said |= {limit.key: limit for limit in limits if limit.key in self._said}
            raised = raised or waiting.is_raised(limits)
            more_room = more_room or (waiting.may_fit(limits) and waiting.has_more_room(limits))
        return raised or (now >= self._next_look and (more_room or self._fewer))
