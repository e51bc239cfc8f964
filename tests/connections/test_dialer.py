"""Dialing and listening by scheme, with a scheme that opens no connections."""

from __future__ import annotations

import pytest

from tests.connections.loopback import DEFAULTS, OURS, Recorder
from untrusted_s3.addresses import Address, HostPort
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.dialer import Dialer
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.listener import Listener
from untrusted_s3.connections.registry import SchemeRegistry
from untrusted_s3.connections.scheme import Scheme
from untrusted_s3.connections.tls import make_context
from untrusted_s3.connections.transport import BEPTransport, TransportHandler
from untrusted_s3.errors import AddressUnavailable, DialFailed, UsageError
from untrusted_s3.settings import ConnectionSettings


class FakeScheme:
    """A scheme that notes what it is asked to do. Hosts named "bad" cannot be used."""

    def __init__(self) -> None:
        self.dialers = 0
        self.dialed: list[Address] = []
        self.listening: list[Address] = []
        self.scheme = Scheme(self._dialer, lambda address, transports: FakeListener(self, address))

    def _dialer(self, transports: TransportFactory, settings: ConnectionSettings) -> FakeScheme:
        self.dialers += 1
        return self

    async def dial(self, address: Address, device_id: DeviceID | None = None) -> None:
        if address.endpoint.host == "bad":
            raise DialFailed("nobody there")
        self.dialed.append(address)


class FakeListener:
    def __init__(self, scheme: FakeScheme, address: Address) -> None:
        self._scheme = scheme
        self._address = address

    async def start(self) -> None:
        if self._address.endpoint.host == "bad":
            raise AddressUnavailable(str(self._address), "devices", "in use")
        self._scheme.listening.append(self._address)

    async def listen_again(self) -> None:
        pass

    async def stop(self) -> None:
        if self._address in self._scheme.listening:
            self._scheme.listening.remove(self._address)

    @property
    def addresses(self) -> list[Address]:
        return [self._address] if self._address in self._scheme.listening else []


def no_handler(transport: BEPTransport) -> TransportHandler:
    return Recorder(OURS, dialed=True)


@pytest.fixture
def transports() -> TransportFactory:
    return TransportFactory(make_context(OURS), no_handler, DEFAULTS)


async def test_each_scheme_dials_its_own_addresses(transports: TransportFactory) -> None:
    one, other = FakeScheme(), FakeScheme()
    dialer = Dialer(transports, DEFAULTS, SchemeRegistry({"one": one.scheme, "other": other.scheme}))
    for address in ("one://a:1", "other://b:2", "one://c:3"):
        await dialer.dial(address)
    assert [str(address) for address in one.dialed] == ["one://a:1", "one://c:3"]
    assert other.dialed == [Address("other", HostPort("b", 2))]
    assert (one.dialers, other.dialers) == (1, 1)


async def test_a_scheme_that_no_address_has_gets_no_dialer(transports: TransportFactory) -> None:
    one = FakeScheme()
    Dialer(transports, DEFAULTS, SchemeRegistry({"one": one.scheme}))
    assert one.dialers == 0


@pytest.mark.parametrize("address", ["one://bad:1", "dynamic", "quic://h:1", ""])
async def test_what_cannot_be_dialed(transports: TransportFactory, address: str) -> None:
    dialer = Dialer(transports, DEFAULTS, SchemeRegistry({"one": FakeScheme().scheme}))
    with pytest.raises(DialFailed):
        await dialer.dial(address)


async def test_listening_on_addresses_of_several_schemes(transports: TransportFactory) -> None:
    one, other = FakeScheme(), FakeScheme()
    schemes = SchemeRegistry({"one": one.scheme, "other": other.scheme})
    listener = Listener(["one://a:1", "other://b:2"], transports, schemes)
    assert listener.addresses == []
    await listener.start()
    assert listener.addresses == ["one://a:1", "other://b:2"]
    assert len(one.listening) == len(other.listening) == 1
    await listener.stop()
    assert listener.addresses == []


async def test_where_one_address_cannot_be_used_none_is(transports: TransportFactory) -> None:
    one = FakeScheme()
    listener = Listener(["one://a:1", "one://bad:1"], transports, SchemeRegistry({"one": one.scheme}))
    with pytest.raises(AddressUnavailable, match="one://bad:1: in use"):
        await listener.start()
    assert one.listening == []


async def test_an_address_of_an_unknown_scheme_is_refused_before_anything_is_listened_on(
    transports: TransportFactory,
) -> None:
    with pytest.raises(UsageError, match="quic"):
        Listener(["quic://a:1"], transports)
