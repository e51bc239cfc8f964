"""Parsed file infos on their way from an index message to the pull, so that each is parsed once."""

from __future__ import annotations

from untrusted_s3.accounts import Account
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo


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
            device = self._devices[device_id] = _OfDevice(self._account, device_id)
        device.put(key, file_info)

    def take(self, device_id: DeviceID, key: bytes, sequence: int | None = None) -> FileInfo | None:
        """Remove and return what a device announces under a name.

        None when nothing is kept under the name, or nothing of this sequence number.
        """
        device = self._devices.get(device_id)
        return device.take(key, sequence) if device is not None else None

    def drop(self, device_id: DeviceID) -> None:
        """Drop the file infos of a device."""
        device = self._devices.pop(device_id, None)
        if device is not None:
            device.close()

    def clear(self) -> None:
        """Drop everything."""
        for device_id in list(self._devices):
            self.drop(device_id)


class _OfDevice:
    """The file infos of one device, by name hash, the earliest first."""

    def __init__(self, account: Account, device_id: DeviceID) -> None:
        self._kept: dict[bytes, FileInfo] = {}
        self._share = account.share(device_id, evict=self._drop_latest)

    def put(self, key: bytes, file_info: FileInfo) -> None:
        self.take(key)
        self._kept[key] = file_info
        self._share.charge(file_info.memory_size)

    def take(self, key: bytes, sequence: int | None = None) -> FileInfo | None:
        found = self._kept.get(key)
        if found is None or (sequence is not None and found.message.sequence != sequence):
            return None
        del self._kept[key]
        self._share.release(found.memory_size)
        return found

    def close(self) -> None:
        self._share.close()

    def _drop_latest(self) -> None:
        if self._kept:
            _, file_info = self._kept.popitem()
            self._share.release(file_info.memory_size)
