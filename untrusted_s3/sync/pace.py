"""How fast a device's messages are taken: one that sends more than an honest device does is slowed, and no other."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.settings import SyncSettings


@dataclass(slots=True)
class _Pace:
    room: float
    at: float


class Paces:
    """The paces of all devices: each may use `burst` at once and `rate` a second, over all its connections."""

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._paces: dict[DeviceID, _Pace] = {}

    def delay(self, device_id: DeviceID, amount: float, now: float) -> float:
        """Count an amount, and return for how many seconds it has to wait."""
        pace = self._paces.setdefault(device_id, _Pace(self._burst, now))
        pace.room = min(pace.room + (now - pace.at) * self._rate, self._burst)
        pace.at = now
        pace.room -= amount
        return max(-pace.room / self._rate, 0.0)


class IndexPaces:
    """The paces of file infos, so that the log grows in proportion to what a device sends.

    A compressed message can be 255 times as large as what was sent, and each of its file infos goes to the log, to the
    state and to all other devices. Syncthing's file infos hardly compress, because they are encrypted. So a device may
    send file infos of `index_ratio` times the bytes that came over its connections, `index_burst` bytes more at once,
    and `index_rate` bytes a second.
    """

    def __init__(self, settings: SyncSettings) -> None:
        self._ratio = settings.index_ratio
        self._paces = Paces(settings.index_burst, settings.index_rate)

    def delay(self, device_id: DeviceID, size: int, received: int, now: float) -> float:
        """Return for how many seconds an index message has to wait.

        `size` are the bytes of its file infos; `received` are those that came over the connection since the message
        before.
        """
        return self._paces.delay(device_id, max(size - self._ratio * received, 0), now)
