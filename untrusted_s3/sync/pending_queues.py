"""The pending entries of each device in the order of its sequence numbers, read a batch at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.pending import Pending, PendingIndex

_BATCH = 200
# Before all entries: sequence number and name hash.
_START = (-(2**63), b"")


class PendingQueues:
    """A queue for each device, and how far the pending index has been read into it."""

    def __init__(self, pending: PendingIndex, expect: Callable[[Sequence[bytes]], object]) -> None:
        """`expect` is told the hashes of the names of the entries that come next."""
        self._pending = pending
        self._expect = expect
        self._queues: dict[DeviceID, deque[Pending]] = {}
        self._read: dict[DeviceID, tuple[int, bytes]] = {}

    def of(self, device_id: DeviceID) -> deque[Pending]:
        """Return a device's queue, from which the caller takes entries. It is empty only if there are none."""
        queue = self._queues.setdefault(device_id, deque())
        if not queue:
            sequence, key = self._read.get(device_id, _START)
            queue.extend(self._pending.after(device_id, sequence, _BATCH, key))
            if queue:
                self._expect([entry.name_hash for entry in queue])
                self._read[device_id] = queue[-1].sequence, queue[-1].name_hash
        return queue

    def read_again(self) -> None:
        """Begin with the first entries again."""
        self._queues.clear()
        self._read.clear()

    def read_again_from(self, device_id: DeviceID, sequence: int) -> None:
        """Read a device's entries again from a sequence number on."""
        queue = self._queues.pop(device_id, None)
        first = min(queue[0].sequence, sequence) if queue else sequence
        self._read[device_id] = min(self._read.get(device_id, _START), (first, b""))
