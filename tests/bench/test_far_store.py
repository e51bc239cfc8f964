"""A store that looks far away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from bench.far_store import Distance, FarStore, Line


def test_bytes_arrive_after_half_of_the_round_trip() -> None:
    line = Line(Distance(round_trip=0.04))
    assert [line.arrival(size, 1.0) for size in (1, 1 << 20)] == [1.02, 1.02]


def test_all_bytes_share_the_bandwidth() -> None:
    line = Line(Distance(round_trip=0.04, bandwidth=1000.0))
    assert [line.arrival(size, 1.0) for size in (500, 500, 1000)] == [1.52, 2.02, 3.02]
    assert line.arrival(500, 10.0) == 10.52


def test_how_far_it_is_in_words() -> None:
    assert str(Distance(0.04, 50 << 20)) == "store 40 ms away, 50 MiB/s"
    assert not Distance() and Distance(0.001) and Distance(0.0, 1.0)


async def test_what_passes_is_the_same_and_comes_later() -> None:
    sent = bytes(itertools.islice(itertools.cycle(range(251)), 3_000_000))

    async def store(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(store, "127.0.0.1", 0)
    far, port = await FarStore("127.0.0.1", server.sockets[0].getsockname()[1], Distance(0.05)).listen()
    async with server, far:
        began = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent[::-1]
        assert asyncio.get_running_loop().time() - began >= 0.1, "a connection and a round trip"
        writer.close()


async def test_a_store_that_is_not_there_ends_the_connection() -> None:
    far, port = await FarStore("127.0.0.1", 1, Distance(0.001)).listen()
    async with far:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
