"""The HTTP pages, asked over loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest

from tests.gateway.http.served import FakeGateway, failing, running
from untrusted_s3.errors import AddressUnavailable, StoreUnreachable, UsageError
from untrusted_s3.gateway.http.server import HTTPServer

Get = Callable[[str], Awaitable[tuple[int, str]]]


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def get(gateway: FakeGateway) -> AsyncIterator[Get]:
    """Get a path: the status code and the text."""
    server = HTTPServer(gateway, "127.0.0.1:0")
    await server.start()
    (address,) = server.addresses
    async with aiohttp.ClientSession(f"http://{address}") as client:

        async def got(path: str) -> tuple[int, str]:
            async with client.get(path) as response:
                return response.status, await response.text()

        yield got
    await server.stop()


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("ready", [False, True])
async def test_it_is_alive_at_all_times(gateway: FakeGateway, get: Get, ready: bool) -> None:
    gateway.ready = ready
    gateway.store_error = StoreUnreachable("no answer")
    assert await get("/healthz") == (200, "alive\n")


async def test_it_is_ready_while_it_serves(gateway: FakeGateway, get: Get) -> None:
    gateway.background = [running("dial")]
    assert await get("/readyz") == (200, "ready\n")


async def test_it_is_not_ready_while_it_starts_or_stops(gateway: FakeGateway, get: Get) -> None:
    gateway.ready = False
    assert await get("/readyz") == (503, "starting or stopping\n")


async def test_it_is_not_ready_without_its_store(gateway: FakeGateway, get: Get) -> None:
    gateway.store_error = StoreUnreachable("no answer")
    assert await get("/readyz") == (503, "the store does not answer: no answer\n")


async def test_failing_tasks_are_named_and_it_serves_on(gateway: FakeGateway, get: Get) -> None:
    gateway.background = [failing("dial"), running("heartbeat"), failing("folder a\nb: pull")]
    assert await get("/readyz") == (200, "ready, degraded: dial, folder a\\nb: pull\n")


async def test_the_status_is_json(gateway: FakeGateway, get: Get) -> None:
    code, text = await get("/api/status")
    assert (code, json.loads(text)) == (200, gateway.shown)


@pytest.mark.parametrize("path", ["/api/status", "/metrics"])
async def test_a_status_that_fails_ends_nothing(gateway: FakeGateway, get: Get, path: str) -> None:
    gateway.status_error = ValueError("an internal error")
    assert (await get(path))[0] == 500
    gateway.status_error = None
    assert (await get(path))[0] == 200


async def test_other_paths_are_not_found(get: Get) -> None:
    assert (await get("/"))[0] == 404


async def test_a_port_in_use(gateway: FakeGateway, port_in_use: int) -> None:
    server = HTTPServer(gateway, f"127.0.0.1:{port_in_use}")
    with pytest.raises(AddressUnavailable, match="in use") as error:
        await server.start()
    assert (error.value.address, error.value.purpose) == (f"127.0.0.1:{port_in_use}", "http")
    assert server.addresses == []
    await server.stop()


@pytest.mark.parametrize("address", ["8385", "127.0.0.1", "127.0.0.1:x", "::1:8385", ":70000"])
def test_what_is_no_address(gateway: FakeGateway, address: str) -> None:
    with pytest.raises(UsageError, match=r"HOST:PORT|IPv6"):
        HTTPServer(gateway, address)


async def test_it_stops_and_starts_again(gateway: FakeGateway) -> None:
    server = HTTPServer(gateway, "127.0.0.1:0")
    for _ in range(2):
        await server.start()
        assert len(server.addresses) == 1
        await server.stop()
        assert server.addresses == []
