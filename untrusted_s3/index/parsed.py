"""Parsed file infos on their way from an index message to the pull, so that each is parsed once."""

from __future__ import annotations

from functools import partial

from untrusted_s3.accounts import Account, Share
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo


class _OfDevice:
    def __init__(self) -> None:
        self.kept: dict[bytes, FileInfo] = {}  # by name hash
        self.share: Share


class ParsedFileInfos:
    """The parsed file infos of one folder that wait to be pulled.

    The account bounds them over all folders. When it is full, the device with the most of them loses the latest, for
    entries are pulled in the order of their announcement. What is lost is parsed again from the pending index.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._devices: dict[DeviceID, _OfDevice] = {}

    def put(self, device_id: DeviceID, key: bytes, file_info: FileInfo) -> None:
        """Keep what a device announces under the name with this hash, in place of what it announced before."""
        device = self._devices.get(device_id)
        if device is None:
            device = self._devices[device_id] = _OfDevice()
            device.share = self._account.share(device_id, evict=partial(self._drop_latest, device))
        self._pop(device, key)
        device.kept[key] = file_info
        device.share.charge(file_info.memory_size)

    def take(self, device_id: DeviceID, key: bytes, sequence: int | None = None) -> FileInfo | None:
        """Remove and return what a device announces under a name.

        None when nothing is kept under the name, or nothing of this sequence number.
        """
        device = self._devices.get(device_id)
        if device is None or key not in device.kept:
            return None
        if sequence is not None and device.kept[key].message.sequence != sequence:
            return None
        return self._pop(device, key)

    def drop(self, device_id: DeviceID) -> None:
        """Drop the file infos of a device."""
        device = self._devices.pop(device_id, None)
        if device is not None:
            device.share.close()

    def clear(self) -> None:
        """Drop everything."""
        for device_id in list(self._devices):
            self.drop(device_id)

    def _pop(self, device: _OfDevice, key: bytes) -> FileInfo | None:
        found = device.kept.pop(key, None)
        if found is not None:
            device.share.release(found.memory_size)
        return found

    def _drop_latest(self, device: _OfDevice) -> None:
        if device.kept:
            _, file_info = device.kept.popitem()
            device.share.release(file_info.memory_size)
