"""Admission: connections whose device is not accepted (yet), and what they send until it is.

Anybody can open a connection, so their number is bounded. When the bound is exceeded, the network with the most
unadmitted connections loses its oldest one. A flood from one network therefore displaces itself, and an accepted
device, which needs a moment to show its device ID, still gets in.
"""

from __future__ import annotations

import ipaddress
import resource
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from untrusted_s3.errors import TooManyConnections
from untrusted_s3.settings import ConnectionSettings

_logger = structlog.get_logger()


class Evictable(Protocol):
    """A connection that can be cut."""

    def evict(self, error: Exception) -> None:
        """End the connection at once, because of `error`."""
        ...


class UnadmittedConnections:
    """At most `capacity` connections that belong to no accepted device, by the network they come from.

    The log mentions evictions once per `log_interval` seconds of `clock`.
    """

    def __init__(self, capacity: int, log_interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._log_interval = log_interval
        self._clock = clock
        self._by_network: dict[str, dict[Evictable, None]] = {}
        self._network_of: dict[Evictable, str] = {}
        self._evicted = 0
        self._logged_at = float("-inf")

    def __len__(self) -> int:
        return len(self._network_of)

    def add(self, connection: Evictable, host: str) -> None:
        """Add a connection from the IP address `host`. If there are too many now, cut one."""
        network = _network(host)
        self._network_of[connection] = network
        self._by_network.setdefault(network, {})[connection] = None
        if len(self._network_of) > self._capacity:
            self._evict_one()

    def remove(self, connection: Evictable) -> None:
        """Remove a connection that was admitted or is gone. Does nothing if it is not in the table."""
        network = self._network_of.pop(connection, None)
        if network is not None:
            connections = self._by_network[network]
            del connections[connection]
            if not connections:
                del self._by_network[network]

    def _evict_one(self) -> None:
        largest = max(self._by_network.values(), key=len)
        oldest = next(iter(largest))
        self.remove(oldest)
        self._evicted += 1
        now = self._clock()
        if now - self._logged_at >= self._log_interval:
            _logger.warning("connections of unknown devices cut, too many are open", cut=self._evicted)
            self._evicted, self._logged_at = 0, now
        oldest.evict(TooManyConnections("too many connections that are not accepted yet"))


class Admission:
    """The admission of one connection: its place in the table, and the data that waits for the decision.

    A connection is in the table until its device is admitted, and again while it closes: a peer that does not read
    could otherwise collect closing connections without bound. Without a table nothing is counted.
    """

    def __init__(self, connection: Evictable, table: UnadmittedConnections | None) -> None:
        self._connection = connection
        self._table = table
        self._host = ""
        self._held: list[bytes] | None = None

    @property
    def holding(self) -> bool:
        """Whether data is held: the peer has said Hello, and the decision is still open."""
        return self._held is not None

    def opened(self, host: str) -> None:
        """Count a new connection from the IP address `host`."""
        self._host = host
        self._count()

    def begin(self) -> None:
        """Hold all data from here on: the peer has said who it is."""
        self._held = []

    def hold(self, pieces: list[bytes]) -> None:
        """Keep data that came after the Hello."""
        assert self._held is not None
        self._held += pieces

    def admit(self) -> list[bytes]:
        """The peer is accepted: return the data that was held."""
        self._forget()
        held, self._held = self._held or [], None
        return held

    def closing(self) -> None:
        """Count the connection again until it has ended."""
        self._count()

    def ended(self) -> None:
        """Forget the connection."""
        self._forget()

    def _count(self) -> None:
        if self._table is not None:
            self._table.add(self._connection, self._host)

    def _forget(self) -> None:
        if self._table is not None:
            self._table.remove(self._connection)


def raise_file_limit(settings: ConnectionSettings) -> int:
    """Raise this process's limit of open files as far as the system and the settings allow; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_open_files if hard == resource.RLIM_INFINITY else min(hard, settings.max_open_files)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return settings.max_open_files if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def unadmitted_capacity(open_files: int, settings: ConnectionSettings) -> int:
    """Return how many unadmitted connections a process with `open_files` files may have.

    The store, the databases and the accepted devices need files as well.
    """
    return max(1, min(settings.max_unadmitted, open_files // 4))


def _network(host: str) -> str:
    """Return what usually has one owner: an IPv4 address, or the first 64 bits of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
