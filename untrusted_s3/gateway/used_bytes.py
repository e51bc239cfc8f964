"""The bytes that count for limits of all folders together, kept up to date: a file costs the same however many folders
are open."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import UntrustedS3Error
from untrusted_s3.sync.folder import Folder


class _Sum:
    """The sum of what a function says of each folder. Only folders that have changed are asked again."""

    def __init__(self, bytes_of: Callable[[Folder], int], folders: Iterable[Folder]) -> None:
        self._bytes_of = bytes_of
        self._total = 0
        # By id, as `_parts`: the folders stay open while a sum is in use.
        self._changed = {id(folder): folder for folder in folders}
        self._parts = dict.fromkeys(self._changed, 0)

    def changed(self, folder: Folder) -> None:
        if id(folder) in self._parts:  # else it is not open yet, or no longer
            self._changed[id(folder)] = folder

    def value(self) -> int:
        for number, folder in self._changed.items():
            part = 0
            with contextlib.suppress(UntrustedS3Error):  # its local state is damaged, and it is opened again
                part = self._bytes_of(folder)
            self._total += part - self._parts[number]
            self._parts[number] = part
        self._changed.clear()
        return self._total


class UsedBytes:
    """The sums over the open folders, which `folders` returns."""

    def __init__(self, folders: Callable[[], Iterable[Folder]]) -> None:
        self._folders = folders
        self._all: _Sum | None = None
        self._of_device: dict[DeviceID, _Sum] = {}

    def changed(self, folder: Folder) -> None:
        """Note that a folder has other bytes than before, or that others are under way."""
        if self._all is not None:
            self._all.changed(folder)
        for one in self._of_device.values():
            one.changed(folder)

    def reset(self) -> None:
        """Note that other folders are open than before: all are asked again."""
        self._all = None
        self._of_device.clear()

    @property
    def total(self) -> int:
        """The bytes of the files that all folders have, and of those under way."""
        if self._all is None:
            self._all = _Sum(lambda folder: folder.used_bytes, self._folders())
        return self._all.value()

    def of(self, device_id: DeviceID) -> int:
        """Return how many of them are from a device."""
        found = self._of_device.get(device_id)
        if found is None:
            found = self._of_device[device_id] = _Sum(lambda folder: folder.bytes_from(device_id), self._folders())
        return found.value()
