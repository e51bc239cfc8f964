"""How much of what peers have said is in memory and not handled yet, over all sessions."""

from __future__ import annotations

import asyncio

from untrusted_s3 import limits
from untrusted_s3.bep import events
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.sync.connection import PausableConnection


class MessageMemory:
    """At most `total` bytes. Whoever holds most must go where there are more: peers that behave stay far below, and
    waiting for one that does not would only hold up the others."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._held: dict[MessageQueue, int] = {}

    @property
    def scarce(self) -> bool:
        """Whether nobody should queue more than what it needs to go on."""
        return self.used > self.total // 2

    def hold(self, queue: MessageQueue, size: int) -> None:
        """`queue` has `size` bytes now, not what it had before."""
        self.used += size - self._held.pop(queue, 0)
        if size:
            self._held[queue] = size
        while self.used > self.total:
            largest = max(self._held, key=self._held.__getitem__)
            held = self._held[largest]
            largest.drop(RemoteProtocolError(f"{held} bytes of messages wait here, and memory is short"))


class MessageQueue:
    """The messages of one peer that wait to be handled; where they are much, the peer waits as well."""

    def __init__(self, memory: MessageMemory, connection: PausableConnection) -> None:
        self._memory = memory
        self._connection = connection
        self._queue: asyncio.Queue[tuple[events.Event, int]] = asyncio.Queue()
        self._queued = 0
        self._in_hand = 0
        self._buffered = 0
        self._paused = False
        self._dropped = False

    def put(self, event: events.Event) -> None:
        """Takes in a message."""
        if self._dropped:
            return
        size = held_size(event)
        self._queue.put_nowait((event, size))
        self._queued += size
        self._hold()
        if not self._paused and self._queued > self._room():
            self._paused = True
            self._connection.pause_reading()

    async def get(self) -> events.Event:
        """The next message; the one before is handled."""
        self._queued -= self._in_hand
        self._in_hand = 0
        self._hold()
        if self._paused and self._queued <= self._room() // 2:
            self._paused = False
            self._connection.resume_reading()
        event, self._in_hand = await self._queue.get()
        return event

    def buffered(self, size: int) -> None:
        """So many bytes are here of a message that is not complete."""
        self._buffered = size
        self._hold()

    def drop(self, error: Exception | None = None) -> None:
        """Forgets everything, and whatever comes later. With `error` the connection ends at once because of it."""
        self._dropped = True
        self._queue = asyncio.Queue()
        self._memory.hold(self, 0)
        if error is not None:
            self._connection.fail(error)
            self._connection.abort()

    def _room(self) -> int:
        return 0 if self._memory.scarce else limits.QUEUED_MESSAGE_MEMORY

    def _hold(self) -> None:
        if not self._dropped:
            self._memory.hold(self, self._queued + self._buffered)


def held_size(event: events.Event) -> int:
    """About how many bytes of memory a message takes until it is handled."""
    size = 512
    if isinstance(event, events.IndexReceived):
        size += sum(len(raw) + 64 for raw in event.files)
    elif isinstance(event, events.ClusterConfigReceived):
        # As objects, folders and devices take several times what they are on the wire.
        size += sum(4 * folder.ByteSize() + 512 for folder in event.folders)
    elif isinstance(event, events.RequestReceived):
        size += len(event.name) + len(event.folder) + len(event.hash)
    elif isinstance(event, events.CloseReceived):
        size += len(event.reason)
    return size
