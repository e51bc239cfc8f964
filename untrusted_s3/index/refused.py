"""The file infos of peers that were left out of the pending index because they break a rule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from untrusted_s3.bep.device_id import DeviceID

_MOST_KEPT = 1000  # of one device
_NAME_LENGTH = 200
_REASON_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """A file info that is left out.

    Attributes:
        key: The hash of the name.
        name: The encrypted name, cut short if it is long.
        sequence: The announcing device's sequence number.
        reason: What is wrong.
    """

    key: bytes
    name: str
    sequence: int
    reason: str

    @classmethod
    def of(cls, key: bytes, name: str, sequence: int, reason: str) -> Refused:
        """Make one whose texts are short enough to be kept and shown."""
        return cls(key, name[:_NAME_LENGTH], sequence, reason[:_REASON_LENGTH])


@dataclass(slots=True)
class _OfDevice:
    kept: dict[bytes, Refused] = field(default_factory=dict)
    # Those that are not kept: how many, and the lowest of their sequence numbers.
    more: int = 0
    first_of_more: int | None = None

    @property
    def first(self) -> int | None:
        """The lowest sequence number."""
        lowest = [refused.sequence for refused in self.kept.values()]
        return min([*lowest, *([self.first_of_more] if self.first_of_more is not None else [])], default=None)


class RefusedFiles:
    """What is refused of each device's index. Of one device, the first thousand are kept, the others counted."""

    def __init__(self) -> None:
        self._devices: dict[DeviceID, _OfDevice] = {}

    def __len__(self) -> int:
        """Return how many files are refused."""
        return sum(len(device.kept) + device.more for device in self._devices.values())

    def __iter__(self) -> Iterator[tuple[DeviceID, Refused]]:
        """Yield the files that are kept, with the announcing devices."""
        for device_id, device in self._devices.items():
            for refused in device.kept.values():
                yield device_id, refused

    def examples(self, count: int) -> list[tuple[DeviceID, Refused]]:
        """Return some of them."""
        return list(islice(self, count))

    def first(self, device_id: DeviceID) -> int | None:
        """Return the lowest sequence number of a device's refused files, or None."""
        device = self._devices.get(device_id)
        return device.first if device is not None else None

    def update(self, device_id: DeviceID, refused: Iterable[Refused], other_keys: Collection[bytes]) -> list[Refused]:
        """Take in what a message of a device announced: refused files, and the hashes of other names.

        Return the files that were not refused before for the same reason.
        """
        device = self._devices.get(device_id) or _OfDevice()
        for key in other_keys:
            device.kept.pop(key, None)
        new = []
        for one in refused:
            known = device.kept.get(one.key)
            if known is None and len(device.kept) >= _MOST_KEPT:
                device.more += 1
                first = device.first_of_more
                device.first_of_more = one.sequence if first is None else min(first, one.sequence)
                continue
            device.kept[one.key] = one
            if known is None or known.reason != one.reason:
                new.append(one)
        if device.kept or device.more:
            self._devices[device_id] = device
        else:
            self._devices.pop(device_id, None)
        return new

    def drop(self, device_id: DeviceID) -> None:
        """Forget what is refused of a device."""
        self._devices.pop(device_id, None)
