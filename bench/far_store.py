"""A TCP proxy that makes a store on this machine look far away: a round trip of some milliseconds, limited bandwidth.

Run it as `python -m bench.far_store HOST PORT ROUND_TRIP_MS BANDWIDTH`, with bytes a second each way, or 0 for no
limit. It prints the port on which it listens, and ends with the process that started it.

Each direction of a connection takes half of the round trip, and a new connection one round trip more. All connections
share the bandwidth. What TCP adds over long distances (slow start, lost packets) is not imitated.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import uvloop

from untrusted_s3.store.embedded.process import die_with_parent

_CHUNK = 256 * 1024
# What may be on its way in one direction of one connection, as with a large TCP window.
_ON_ITS_WAY = 16 << 20


@dataclass(frozen=True)
class Distance:
    """How far away the store is: `round_trip` in seconds, `bandwidth` in bytes a second each way, 0 without limit."""

    round_trip: float = 0.0
    bandwidth: float = 0.0

    def __bool__(self) -> bool:
        return self.round_trip > 0 or self.bandwidth > 0

    def __str__(self) -> str:
        limit = f", {self.bandwidth / (1 << 20):.0f} MiB/s" if self.bandwidth else ""
        return f"store {self.round_trip * 1000:.0f} ms away{limit}"


NEAR = Distance()


class Line:
    """One direction, which all connections share."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._free_at = 0.0

    def arrival(self, size: int, now: float) -> float:
        """Return when bytes arrive that are sent now."""
        if self._distance.bandwidth:
            self._free_at = max(self._free_at, now) + size / self._distance.bandwidth
            now = self._free_at
        return now + self._distance.round_trip / 2


class FarStore:
    """The proxy. `host` and `port` are the store's."""

    def __init__(self, host: str, port: int, distance: Distance) -> None:
        self._store = host, port
        self._distance = distance
        self._there, self._back = Line(distance), Line(distance)

    async def listen(self) -> tuple[asyncio.Server, int]:
        """Return the running server and its port on 127.0.0.1."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_CHUNK)
        return server, server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(self._distance.round_trip)
            store_reader, store_writer = await asyncio.open_connection(*self._store, limit=_CHUNK)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_carry(self._there, reader, store_writer))
                    tasks.create_task(_carry(self._back, store_reader, writer))
            finally:
                store_writer.close()
        except* OSError:
            pass  # a side is gone; the other one sees its connection end
        finally:
            writer.close()


async def _carry(line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes in one direction until its end."""
    loop = asyncio.get_running_loop()
    on_its_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ON_ITS_WAY // _CHUNK)

    async def receive() -> None:
        data = b"more"
        while data:
            data = await reader.read(_CHUNK)
            await on_its_way.put((line.arrival(len(data), loop.time()), data))

    async def deliver() -> None:
        while True:
            arrival, data = await on_its_way.get()
            await asyncio.sleep(max(arrival - loop.time(), 0))
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(receive())
        tasks.create_task(deliver())


@contextlib.contextmanager
def far_away(host: str, port: int, distance: Distance) -> Iterator[int]:
    """Run the proxy in a process of its own. Gives its port, or that of the store if that is near."""
    if not distance:
        yield port
        return
    arguments = [host, str(port), str(distance.round_trip * 1000), str(distance.bandwidth)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.far_store", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent(),
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def main(host: str, port: int, distance: Distance) -> None:
    """Serve without end."""
    server, own_port = await FarStore(host, port, distance).listen()
    print(own_port, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    _host, _port, _round_trip, _bandwidth = sys.argv[1:]
    uvloop.run(main(_host, int(_port), Distance(float(_round_trip) / 1000, float(_bandwidth))))
