"""TCP on loopback: dialing, listening, and what a failed dial leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Iterator

import pytest

from tests.connections.loopback import DEFAULTS, OURS, THEIRS, Recorder
from tests.virtual_time import advance, paused_time
from tests.waiting import give_a_chance, until
from untrusted_s3.addresses import Address, HostPort, parse_address
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.admission import UnadmittedConnections
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.tcp import TCPDialer, TCPListener
from untrusted_s3.connections.tls import TLSRole, make_context
from untrusted_s3.connections.transport import BEPTransport, TransportHandler
from untrusted_s3.errors import AddressUnavailable, DialFailed
from untrusted_s3.identity.certificate import Identity

ANY_PORT = Address("tcp", HostPort("127.0.0.1", 0))


class Device(Recorder):
    """A device whose connections are made by a factory; it hears the events of all of them."""

    def __init__(self, identity: Identity, unadmitted: UnadmittedConnections | None = None) -> None:
        super().__init__(identity, dialed=False)
        self.connections: list[BEPTransport] = []
        self.made: list[weakref.ref[BEPTransport]] = []
        self.factory = _NotingFactory(self, identity, unadmitted)

    def handler_of(self, transport: BEPTransport) -> TransportHandler:
        assert transport.address, "the connection is made"
        self.connections.append(transport)
        self.transport = transport
        return self


class _NotingFactory(TransportFactory):
    def __init__(self, device: Device, identity: Identity, unadmitted: UnadmittedConnections | None) -> None:
        super().__init__(make_context(identity), device.handler_of, DEFAULTS, unadmitted)
        self._device = device

    def over_tls(self, scheme: str, role: TLSRole, *, dialed: bool, expected: DeviceID | None = None) -> BEPTransport:
        transport = super().over_tls(scheme, role, dialed=dialed, expected=expected)
        self._device.made.append(weakref.ref(transport))
        return transport


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody gets during the test."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.mark.parametrize("scheme", ["tcp", "tcp4", "tcp6"])
async def test_two_devices_connect(scheme: str) -> None:
    table = UnadmittedConnections(10, log_interval=1000)
    ours, theirs = Device(OURS, table), Device(THEIRS, table)
    listener = TCPListener(Address(scheme, ANY_PORT.endpoint), ours.factory)
    await listener.start()
    (address,) = listener.addresses
    assert str(address).startswith("tcp://127.0.0.1:") and address.endpoint.port > 0
    await TCPDialer(theirs.factory, DEFAULTS).dial(Address(scheme, address.endpoint))
    await ours.hear(events.HelloReceived)
    await theirs.hear(events.HelloReceived)
    accepted, dialed = ours.transport, theirs.transport
    assert (accepted.dialed, dialed.dialed) == (False, True)
    assert accepted.peer_device_id == THEIRS.device_id
    assert dialed.peer_device_id == OURS.device_id
    assert dialed.address == str(address)
    assert accepted.address.startswith("tcp://127.0.0.1:")
    assert len(table) == 0, "the accepted one is admitted, and dialed ones do not count"
    await listener.stop()
    assert listener.addresses == []
    assert accepted.is_open, "a connection outlives its listener"
    dialed.close("bye")
    await ours.end()
    await theirs.end()


async def test_ipv6() -> None:
    ours, theirs = Device(OURS), Device(THEIRS)
    listener = TCPListener(parse_address("tcp://[::1]:0"), ours.factory)
    try:
        await listener.start()
    except AddressUnavailable:
        pytest.skip("this machine has no IPv6")
    (address,) = listener.addresses
    assert str(address).startswith("tcp://[::1]:")
    await TCPDialer(theirs.factory, DEFAULTS).dial(address)
    await ours.hear(events.HelloReceived)
    assert theirs.transport.address == str(address)
    assert ours.transport.address.startswith("tcp://[::1]:")
    theirs.transport.abort()
    await ours.end()
    await listener.stop()


async def test_an_address_in_use(port_in_use: int) -> None:
    listener = TCPListener(Address("tcp", HostPort("127.0.0.1", port_in_use)), Device(OURS).factory)
    with pytest.raises(AddressUnavailable, match="in use") as error:
        await listener.start()
    assert error.value.address == f"tcp://127.0.0.1:{port_in_use}"
    assert error.value.address in str(error.value)
    assert listener.addresses == []
    await listener.stop()


async def test_a_host_that_is_not_ours() -> None:
    with pytest.raises(AddressUnavailable, match=r"192\.0\.2\.1"):
        await TCPListener(parse_address("tcp://192.0.2.1:0"), Device(OURS).factory).start()


async def test_a_failed_dial_leaves_nothing(unused_port: int) -> None:
    """uvloop calls the protocol factory before it connects."""
    device = Device(OURS)
    dialer = TCPDialer(device.factory, DEFAULTS)
    address = Address("tcp", HostPort("127.0.0.1", unused_port))
    for _ in range(3):
        with pytest.raises(DialFailed, match=str(address)):
            await dialer.dial(address)
    assert device.connections == [], "no handler is made"
    gc.collect()
    assert [made for made in device.made if made() is not None] == []


@pytest.mark.parametrize("host", ["nas..home", "a" * 64, "no-such-host.invalid"])
async def test_a_host_name_that_makes_no_sense(host: str) -> None:
    with pytest.raises(DialFailed):
        await TCPDialer(Device(OURS).factory, DEFAULTS).dial(Address("tcp", HostPort(host, 22000)))


@paused_time
async def test_an_address_that_does_not_answer() -> None:
    dialer = TCPDialer(Device(OURS).factory, DEFAULTS)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        # Linux leaves connections without an answer once the backlog is full.
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        dialing = asyncio.ensure_future(dialer.dial(Address("tcp", HostPort(*server.getsockname()))))
        await give_a_chance()
        assert not dialing.done()
        await advance(DEFAULTS.handshake_timeout)
        with pytest.raises(DialFailed, match="no connection within 20 s"):
            await dialing


async def test_a_server_that_has_died_is_begun_again() -> None:
    """As uvloop ends it when no file descriptor is free for a connection."""
    ours, theirs = Device(OURS), Device(THEIRS)
    listener = TCPListener(ANY_PORT, ours.factory)
    await listener.start()
    (address,) = listener.addresses
    assert listener.server is not None
    listener.server.close()
    await listener.listen_again()
    assert listener.addresses == [address]
    await TCPDialer(theirs.factory, DEFAULTS).dial(address)
    await ours.hear(events.HelloReceived)
    theirs.transport.abort()
    await ours.end()
    await listener.stop()
    assert listener.addresses == []


async def test_many_at_once() -> None:
    ours, theirs = Device(OURS), Device(THEIRS)
    listener = TCPListener(ANY_PORT, ours.factory)
    await listener.start()
    dialer = TCPDialer(theirs.factory, DEFAULTS)
    await asyncio.gather(*(dialer.dial(listener.addresses[0]) for _ in range(20)))
    await until(lambda: len(ours.connections) == len(theirs.connections) == 20)
    assert len({connection.address for connection in ours.connections}) == 20
    for connection in theirs.connections:
        connection.abort()
    await until(lambda: len(ours.ends) == len(theirs.ends) == 20)
    await listener.stop()


async def test_the_device_that_is_dialed_has_to_answer() -> None:
    ours, theirs = Device(OURS), Device(THEIRS)
    listener = TCPListener(ANY_PORT, theirs.factory)
    await listener.start()
    (address,) = listener.addresses
    dialer = TCPDialer(ours.factory, DEFAULTS)
    with pytest.raises(DialFailed, match="another device answers"):
        await dialer.dial(address, DeviceID(bytes(32)))
    assert str(await ours.end()) == "another device answers at the address"
    assert not ours.is_secured, "no Hello is sent"
    await theirs.end()
    await dialer.dial(address, THEIRS.device_id)
    await until(lambda: ours.is_secured)
    ours.transport.abort()
    await until(lambda: len(theirs.ends) == 2)
    await listener.stop()


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x05hello", b"\x15\x03\x03\x00\x02\x02\x28"]
)
async def test_a_port_that_does_not_speak_the_protocol_is_no_success(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            writer.write(answer)
        writer.close()

    device = Device(OURS)
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    address = Address("tcp", HostPort(*server.sockets[0].getsockname()))
    with pytest.raises(DialFailed, match=str(address)):
        await TCPDialer(device.factory, DEFAULTS).dial(address, THEIRS.device_id)
    await device.end()
    server.close()


@paused_time
async def test_a_port_that_says_nothing_is_no_success() -> None:
    device = Device(OURS)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    address = Address("tcp", HostPort(*server.sockets[0].getsockname()))
    dialing = asyncio.ensure_future(TCPDialer(device.factory, DEFAULTS).dial(address, THEIRS.device_id))
    await until(lambda: bool(device.connections))
    await advance(DEFAULTS.handshake_timeout)
    with pytest.raises(DialFailed, match=str(address)):
        await dialing
    await device.end()
    server.close()
