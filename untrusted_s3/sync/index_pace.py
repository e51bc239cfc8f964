"""How fast the file infos of a device are taken, so that the log grows in proportion to what the device sends."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.settings import SyncSettings


@dataclass(slots=True)
class _Pace:
    room: float
    at: float


class IndexPaces:
    """The paces of all devices.

    A compressed message can be 255 times as large as what was sent, and each of its file infos goes to the log, to the
    state and to all other devices. Syncthing's file infos hardly compress, because they are encrypted. So a device may
    send file infos of `index_ratio` times the bytes that came over its connections, `index_burst` bytes more at once,
    and `index_rate` bytes a second.
    """

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._paces: dict[DeviceID, _Pace] = {}

    def delay(self, device_id: DeviceID, size: int, received: int, now: float) -> float:
        """Return for how many seconds an index message has to wait.

        `size` are the bytes of its file infos; `received` are those that came over the connection since the message
        before.
        """
        settings = self._settings
        pace = self._paces.setdefault(device_id, _Pace(settings.index_burst, now))
        pace.room = min(pace.room + (now - pace.at) * settings.index_rate, settings.index_burst)
        pace.at = now
        pace.room -= max(size - settings.index_ratio * received, 0)
        return max(-pace.room / settings.index_rate, 0.0)
