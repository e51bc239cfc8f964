"""Messages of a peer that wait to be handled, and the memory that they take."""

from __future__ import annotations

import asyncio

from untrusted_s3.accounts import Account
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.sync.connection import PausableConnection


class MessageQueue:
    """The unhandled messages of one connection.

    A connection with many of them is not read from. When all queues together exceed their account, the device with the
    most is disconnected: peers that follow the protocol stay far below that.
    """

    def __init__(self, memory: Account, device_id: DeviceID, connection: PausableConnection, room: int) -> None:
        """Make an empty queue.

        `memory` counts the messages of all connections. The connection is not read from while more than `room` bytes
        wait, or while anything waits and more than half of `memory` is used.
        """
        self._memory = memory
        self._share = memory.share(device_id, evict=self._evict)
        self._connection = connection
        self._room = room
        self._queue: asyncio.Queue[tuple[events.Event, int]] = asyncio.Queue()
        self._queued = 0
        self._in_hand = 0
        self._buffered = 0
        self._paused = False
        self._paused_at = self._paused_before = 0.0
        self._closed = False

    def put(self, event: events.Event) -> None:
        """Add a message."""
        if self._closed:
            return
        size = held_size(event)
        self._queue.put_nowait((event, size))
        self._queued += size
        self._hold()
        if not self._paused and not self._closed and self._queued > self._allowed():
            self._paused = True
            self._paused_at = _loop_time()
            self._connection.pause_reading()

    async def get(self) -> events.Event:
        """Return the next message. The one before is handled."""
        self._queued -= self._in_hand
        self._in_hand = 0
        self._hold()
        if self._paused and self._queued <= self._allowed() // 2:
            self._paused_before = self.paused_seconds
            self._paused = False
            self._connection.resume_reading()
        event, self._in_hand = await self._queue.get()
        return event

    @property
    def paused_seconds(self) -> float:
        """For how long, in all, the connection was not read from."""
        return self._paused_before + (_loop_time() - self._paused_at if self._paused else 0.0)

    def buffered(self, size: int) -> None:
        """Note that `size` bytes of an incomplete message are in memory."""
        self._buffered = size
        self._hold()

    def close(self) -> None:
        """Drop all messages, and those that come later."""
        if not self._closed:
            self._closed = True
            self._queue = asyncio.Queue()
            self._share.close()

    def _evict(self) -> None:
        held = self._share.used
        self.close()
        self._connection.fail(RemoteProtocolError(f"{held} bytes of messages wait here, and memory is short"))
        self._connection.abort()

    def _allowed(self) -> int:
        return 0 if self._memory.scarce else self._room

    def _hold(self) -> None:
        if self._closed:
            return
        change = self._queued + self._buffered - self._share.used
        if change > 0:
            self._share.charge(change)
        else:
            self._share.release(-change)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def held_size(event: events.Event) -> int:
    """Return about how many bytes of memory a message takes until it is handled."""
    size = 512
    if isinstance(event, events.IndexReceived):
        size += sum(len(raw) + 64 for raw in event.files)
    elif isinstance(event, events.ClusterConfigReceived):
        # As objects, folders and devices take several times their serialized size.
        size += sum(4 * folder.ByteSize() + 512 + 128 * len(folder.devices) for folder in event.folders)
    elif isinstance(event, events.RequestReceived):
        size += len(event.name) + len(event.folder) + len(event.hash)
    elif isinstance(event, events.CloseReceived):
        size += len(event.reason)
    return size
