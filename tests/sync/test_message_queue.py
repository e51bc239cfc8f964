"""Messages that wait to be handled: when a peer is held back, and when it is disconnected."""

from __future__ import annotations

import asyncio

from tests.file_infos import device
from tests.virtual_time import virtual_time
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.sync.message_queue import MessageQueue, held_size

ROOM = 1 << 20


class FakeConnection:
    def __init__(self) -> None:
        self.reading = True
        self.error: Exception | None = None
        self.aborted = False

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def fail(self, error: Exception) -> None:
        self.error = error

    def abort(self) -> None:
        self.aborted = True


def index(size: int) -> events.IndexReceived:
    return events.IndexReceived("f", (bytes(size),), True, 0, 0)


async def test_a_full_queue_stops_reading_until_half_of_it_is_handled() -> None:
    message = index(1000)
    size = held_size(message)
    memory, connection = Account(1 << 20), FakeConnection()
    queue = MessageQueue(memory, device(1), connection, 4 * size)
    for _ in range(4):
        queue.put(message)
    reading = [connection.reading]
    queue.put(message)
    assert memory.used == 5 * size
    for _ in range(5):
        assert await queue.get() is message
        reading.append(connection.reading)
    assert reading == [True, False, False, False, True, True]
    assert memory.used == size, "the last one is not handled yet"


@virtual_time
async def test_the_time_without_reading_is_counted() -> None:
    message = index(1000)
    queue = MessageQueue(Account(1 << 20), device(1), FakeConnection(), held_size(message))
    queue.put(message)
    await asyncio.sleep(5)
    assert queue.paused_seconds == 0
    queue.put(message)
    await asyncio.sleep(3)
    assert queue.paused_seconds == 3
    for _ in range(2):
        await queue.get()
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(2)
    assert queue.paused_seconds == 3
    for _ in range(3):
        queue.put(message)
    await waiting
    await asyncio.sleep(4)
    assert queue.paused_seconds == 7


async def test_where_memory_is_scarce_one_message_is_enough() -> None:
    memory = Account(10_000)
    busy, connection = MessageQueue(memory, device(1), FakeConnection(), ROOM), FakeConnection()
    busy.buffered(6000)
    queue = MessageQueue(memory, device(2), connection, ROOM)
    queue.put(events.PingReceived())
    assert not connection.reading
    await queue.get()
    assert not connection.reading, "it is being handled"
    queue.put(events.PingReceived())
    await queue.get()
    assert not connection.reading


async def test_the_device_with_the_most_is_disconnected() -> None:
    memory = Account(100_000)
    connections = [FakeConnection() for _ in range(3)]
    small, large, late = (
        MessageQueue(memory, device(number), connection, ROOM) for number, connection in enumerate(connections)
    )
    small.put(index(10_000))
    large.put(index(50_000))
    large.buffered(10_000)
    late.buffered(20_000)
    assert [connection.error for connection in connections] == [None] * 3
    late.buffered(40_000)
    assert "memory is short" in str(connections[1].error) and connections[1].aborted
    assert connections[0].error is None and connections[2].error is None
    assert memory.used == held_size(index(10_000)) + 40_000
    large.put(index(99_000))
    large.buffered(99_000)
    assert memory.used < 60_000, "what arrives before the connection has ended is dropped"


async def test_the_connections_of_a_device_count_together() -> None:
    memory = Account(100_000)
    honest, *others = (FakeConnection() for _ in range(5))
    MessageQueue(memory, device(1), honest, ROOM).buffered(30_000)
    for connection in others:
        MessageQueue(memory, device(2), connection, ROOM).buffered(20_000)
    assert honest.error is None
    assert sum(connection.aborted for connection in others) == 1


async def test_a_single_connection_that_exceeds_the_memory() -> None:
    memory, connection = Account(1000), FakeConnection()
    MessageQueue(memory, device(1), connection, ROOM).buffered(1001)
    assert connection.aborted
    assert memory.used == 0


async def test_a_closed_queue_holds_nothing() -> None:
    memory = Account(1000)
    queue = MessageQueue(memory, device(1), FakeConnection(), ROOM)
    queue.put(events.PingReceived())
    queue.close()
    queue.close()
    queue.put(events.PingReceived())
    assert memory.used == 0
    assert not memory.usage()


def test_no_message_is_free() -> None:
    folder = pb.Folder(id="f" * 1000)
    assert held_size(events.PingReceived()) >= 500
    assert held_size(events.ClusterConfigReceived((folder,))) > 4000
    assert held_size(events.CloseReceived("x" * 1000)) > 1000
    assert held_size(events.RequestReceived(1, "f", "x" * 1000, 0, 0, b"", False)) > 1000
    assert held_size(index(1000)) > 1000
