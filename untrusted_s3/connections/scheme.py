"""What a scheme of addresses, such as tcp, provides: a way to dial an address and a way to listen on one.

A scheme opens byte streams and has a `TransportFactory` make the transport of each. It decides the TLS role of its
connections, which need not follow from who dialed: over a relay, the relay assigns the roles. The interfaces follow
Syncthing's dialer and listener factories (v2.1.3 lib/connections/structs.go).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from untrusted_s3.addresses import Address
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.settings import ConnectionSettings


class SchemeDialer(Protocol):
    """Dials the addresses of one scheme."""

    async def dial(self, address: Address, device_id: DeviceID | None = None) -> None:
        """Connect to `address` and return once the peer has proven that it is `device_id`, or any device if None.

        The connection lives on by itself; its handler hears of everything else. Raises DialFailed.
        """
        ...


class SchemeListener(Protocol):
    """Accepts connections on one address."""

    async def start(self) -> None:
        """Begin to accept connections. Raises AddressUnavailable if the address cannot be used."""
        ...

    async def listen_again(self) -> None:
        """Begin to accept connections again if the system has ended that. Otherwise this does nothing."""
        ...

    async def stop(self) -> None:
        """Stop accepting connections. Those that are made stay open."""
        ...

    @property
    def addresses(self) -> list[Address]:
        """Addresses that peers can dial, with the real ports; empty while the listener is stopped."""
        ...


class DialerFactory(Protocol):
    """Makes the dialer of a scheme."""

    def __call__(self, transports: TransportFactory, settings: ConnectionSettings) -> SchemeDialer:
        """Return a dialer whose connections get their transports from `transports`."""
        ...


class ListenerFactory(Protocol):
    """Makes the listeners of a scheme."""

    def __call__(self, address: Address, transports: TransportFactory) -> SchemeListener:
        """Return a listener on `address` whose connections get their transports from `transports`."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the addresses of one scheme are dialed and listened on."""

    dialer: DialerFactory
    listener: ListenerFactory
