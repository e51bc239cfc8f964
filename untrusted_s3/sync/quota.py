"""What a folder's pulls may add to the store: quotas of the folder and of devices, and the limit of the store.

A file waits if a limit would be exceeded with it and it adds to what is counted. So a new version that is not larger
comes in over a full quota, and everything without data does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

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

    def __str__(self) -> str:
        size = size_text(self.size)
        if self.kind is LimitKind.STORE:
            return f"the limit of the store, {size}, is reached"
        what = f"device {self.device_id}" if self.kind is LimitKind.DEVICE else "folder"
        return f"the quota of the {what}, {size}, is reached"


LimitsOf = Callable[[DeviceID], Sequence[Limit]]
_Key = tuple[LimitKind, DeviceID | None]


@dataclass(frozen=True, slots=True)
class _Growth:
    """By how much a pull under way changes what is counted: of the folder and the store, and of its device."""

    device_id: DeviceID
    folder: int
    device: int


class FolderQuota:
    """Decides which files of one folder may be pulled, and counts what is under way.

    Attributes:
        limits_of: Returns the limits for a file of a device; none by default.
        in_work: The bytes that the pulls under way add to the folder.
    """

    def __init__(self, folder_id: str, state: FolderState) -> None:
        self.limits_of: LimitsOf = lambda device_id: ()
        self.in_work = 0
        self._folder_id = folder_id
        self._state = state
        self._under_way: dict[bytes, _Growth] = {}  # by name hash
        # The limits for which files wait, with the smallest growth that did not fit.
        self._waiting: dict[_Key, int] = {}
        self._said: dict[_Key, Limit] = {}
        self._pending_files = 0

    def in_work_of(self, device_id: DeviceID) -> int:
        """Return the bytes that the pulls under way add to what a device has stored."""
        return sum(growth.device for growth in self._under_way.values() if growth.device_id == device_id)

    def reserve(self, entry: Pending) -> bool:
        """Return whether a file may be pulled. Then it counts, until `release`."""
        limits = self.limits_of(entry.device_id)
        if not limits:
            return True
        size, source = self._state.data_of(entry.name_hash)
        growth = _Growth(entry.device_id, entry.size - size, entry.size - (size if source == entry.device_id else 0))
        exceeded = False
        for limit in limits:
            added = growth.device if limit.kind is LimitKind.DEVICE else growth.folder
            if added > 0 and limit.used + added > limit.size:
                exceeded = True
                self._wait(limit, added)
        if not exceeded:
            self._under_way[entry.name_hash] = growth
            self.in_work += growth.folder
        return not exceeded

    def release(self, key: bytes) -> None:
        """Note that the pull of the name with this hash has ended, or did not begin."""
        growth = self._under_way.pop(key, None)
        if growth is not None:
            self.in_work -= growth.folder

    def _wait(self, limit: Limit, added: int) -> None:
        key = limit.kind, limit.device_id
        self._waiting[key] = min(added, self._waiting.get(key, added))
        if key not in self._said:
            _logger.warning("files wait for room", folder=self._folder_id, reason=str(limit))
        self._said[key] = limit

    @property
    def reached(self) -> Sequence[Limit]:
        """The limits for which files wait."""
        return list(self._said.values())

    def look(self, pending_files: int) -> bool:
        """Look whether files that wait may come in now. Then the caller looks at all pending entries again.

        `pending_files` is how many names are pending: when there are fewer, perhaps none of those waits any more.
        """
        for key in self._said.keys() - self._waiting.keys():
            _logger.info("no file waits for room any more", folder=self._folder_id, reason=str(self._said.pop(key)))
        fewer, self._pending_files = pending_files < self._pending_files, pending_files
        if not self._waiting or not (fewer or any(self._has_room(*one) for one in self._waiting.items())):
            return False
        self._waiting.clear()
        return True

    def _has_room(self, key: _Key, added: int) -> bool:
        device_id = key[1]
        for limit in self.limits_of(device_id or _NO_DEVICE):
            if (limit.kind, limit.device_id) == key:
                self._said[key] = limit
                return limit.used + added <= limit.size
        return True


_NO_DEVICE = DeviceID(bytes(32))
