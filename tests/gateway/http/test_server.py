"""The HTTP pages, asked over loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.gateway.http.served import FakeGateway, failing, running
from tests.secret_errors import leaks, private, secret_errors
from tests.virtual_time import advance, paused_time
from tests.waiting import give_a_chance, until
from untrusted_s3.addresses import HostPort
from untrusted_s3.errors import AddressUnavailable, RemoteProtocolError, StoreUnreachable, UsageError
from untrusted_s3.gateway.http.hosts import AllowedHosts
from untrusted_s3.gateway.http.server import HTTPServer
from untrusted_s3.settings import HTTPSettings

SETTINGS = HTTPSettings()
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
    assert await get("/readyz") == (503, "the store is not available\n")


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


async def raw(address: HostPort, request: bytes) -> bytes:
    """Send bytes; what is answered until the server ends the connection."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@asynccontextmanager
async def serving(gateway: FakeGateway, *hosts: str, **settings: Any) -> AsyncIterator[HostPort]:
    server = HTTPServer(gateway, "127.0.0.1:0", hosts, HTTPSettings(**settings))
    await server.start()
    yield server.addresses[0]
    await server.stop()


PATHS = ["/healthz", "/readyz", "/metrics", "/api/status", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8385", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "[::1", "x@y"],
)
async def test_a_name_that_others_control_is_not_answered(gateway: FakeGateway, path: str, host: str) -> None:
    async with serving(gateway) as address:
        answer = await raw(address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"403", b"400")
    assert body in (b"this host name is not allowed\n", b"not a request that is understood\n")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:1",
        "localhost",
        "LOCALHOST.:8385",
        "[::1]:8385",
        "192.0.2.7",
        "[2001:db8::1]",
        "nas.home:8385",
        "NAS.HOME",
    ],
)
async def test_addresses_and_names_of_ours_are_answered(gateway: FakeGateway, host: str) -> None:
    async with serving(gateway, "nas.home") as address:
        answer = await raw(address, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_more_hosts_than_one_and_a_target_with_a_host_are_refused(gateway: FakeGateway) -> None:
    async with serving(gateway) as address:
        two = await raw(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        target = await raw(address, b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        none = await raw(address, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert two.split(b" ")[1] in (b"400", b"403")
    assert target.split(b" ")[1] == b"403"
    assert none.startswith(b"HTTP/1.0 200 "), "health checks of load balancers"


@given(name=st.from_regex(r"[a-z0-9.:\[\]@-]{1,40}", fullmatch=True))
def test_of_all_hosts_only_addresses_localhost_and_given_names_are_allowed(name: str) -> None:
    host = name.rpartition(":")[0] if re.search(r":[0-9]{1,5}$", name) and name.count(":") == 1 else name
    allowed = AllowedHosts(["nas.home"]).allow([name])
    if allowed and host.removesuffix(".") not in ("localhost", "nas.home"):
        bracketed = re.fullmatch(r"(?:\[(.*)\](?::[0-9]+)?|(.*))", host)
        assert bracketed is not None
        ipaddress.ip_address(bracketed[1] or bracketed[2])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"])
@pytest.mark.parametrize("path", PATHS)
async def test_only_get_and_head(gateway: FakeGateway, method: str, path: str) -> None:
    async with serving(gateway) as address:
        answer = await raw(address, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.split(b" ")[1] in (b"405", b"400")
        answer = await raw(address, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert answer.split(b" ")[1] in (b"200", b"404") and answer.endswith(b"\r\n\r\n")


async def test_unfinished_requests_make_room_for_others(gateway: FakeGateway) -> None:
    async with serving(gateway, max_connections=8, head_timeout=1000) as address, AsyncExitStack() as stack:
        unfinished = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            stack.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            unfinished.append(reader)
        assert (await raw(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await until(lambda: sum(not reader.at_eof() and reader.exception() is None for reader in unfinished) <= 8)


@paused_time
@pytest.mark.parametrize("begun", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
async def test_an_unfinished_request_ends_soon(gateway: FakeGateway, begun: bytes) -> None:
    async with serving(gateway) as address:
        answer = asyncio.ensure_future(raw(address, begun))
        for _ in range(100):  # seconds; some pass before the connection is accepted
            await give_a_chance()
            if answer.done():
                break
            await advance(1)
        assert await answer == b""


@paused_time
async def test_a_client_that_does_not_read_its_answer_is_cut(gateway: FakeGateway) -> None:
    gateway.shown = {"folders": [], "peers": [], "much": "x" * 50_000_000}
    async with serving(gateway) as address:
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=1)
        writer.write(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: gateway.status_checks == 1)
        await advance(SETTINGS.request_timeout)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(50_000_000)
        writer.close()


@pytest.mark.parametrize("request_head", [b"GET /" + b"a" * 20_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000])
async def test_a_long_request_is_refused_without_repeating_it(gateway: FakeGateway, request_head: bytes) -> None:
    async with serving(gateway) as address:
        answer = await raw(address, request_head + b"\r\n\r\n")
    assert b"aaaa" not in answer
    assert answer == b"" or answer.split(b" ")[1] == b"400"


async def test_those_who_ask_at_once_share_one_request_to_the_store(gateway: FakeGateway) -> None:
    async with serving(gateway, store_check_lifetime=1000) as address:
        gateway.go_on.clear()
        asked = [
            asyncio.ensure_future(raw(address, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")) for _ in range(20)
        ]
        await until(lambda: gateway.store_checks > 0)
        gateway.go_on.set()
        answers = await asyncio.gather(*asked)
        answers.append(await raw(address, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert all(answer.endswith(b"\r\n\r\nready\n") for answer in answers)
    assert gateway.store_checks == 1


@paused_time
async def test_the_answer_of_the_store_counts_for_a_while_only(gateway: FakeGateway) -> None:
    async with serving(gateway) as address:
        for number in range(3):
            for _ in range(2):
                await raw(address, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert gateway.store_checks == number + 1
            await advance(SETTINGS.store_check_lifetime)


@paused_time
async def test_a_store_that_does_not_answer_in_time(gateway: FakeGateway) -> None:
    gateway.go_on.clear()
    async with serving(gateway) as address:
        asked = asyncio.ensure_future(raw(address, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        await until(lambda: gateway.store_checks == 1)
        await advance(SETTINGS.store_timeout)
        answer = await asked
    assert answer.split(b" ")[1] == b"503" and answer.endswith(b"\r\n\r\nthe store is not available\n")


@pytest.mark.parametrize("error", secret_errors(), ids=lambda error: type(error).__name__)
async def test_no_page_shows_the_text_of_an_error(gateway: FakeGateway, get: Get, error: Exception) -> None:
    gateway.store_error = gateway.status_error = error
    gateway.background = [replace(failing("dial"), error=str(error))]
    with capture_logs():
        for path in PATHS:
            code, text = await get(path)
            assert (leaks if isinstance(error, RemoteProtocolError) else private)(text) == []
            assert code == {"/healthz": 200, "/readyz": 503, "/nothing": 404}.get(path, 500)
