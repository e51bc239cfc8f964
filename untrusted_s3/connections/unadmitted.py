"""Connections that belong to no accepted device (yet): anybody can open them, so there is a bound to their number.

When it is reached the oldest one goes, of the address that has most of them. So whoever fills the table pushes himself
out, and an accepted device, which needs a moment to show who it is, still gets in.
"""

from __future__ import annotations

import ipaddress
import resource
import time
from typing import Protocol

import structlog

from untrusted_s3 import limits
from untrusted_s3.errors import TooManyConnections

_logger = structlog.get_logger()


class Evictable(Protocol):
    """A connection that can be cut."""

    def evict(self, error: Exception) -> None:
        """Ends the connection at once, because of `error`."""
        ...


class UnadmittedConnections:
    """At most `capacity` connections, by the address they come from."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._by_network: dict[str, dict[Evictable, None]] = {}
        self._network_of: dict[Evictable, str] = {}
        self._evicted = 0
        self._told = float("-inf")

    def __len__(self) -> int:
        return len(self._network_of)

    def add(self, connection: Evictable, host: str) -> None:
        """Takes in a connection from the address `host`; where there are too many, one is cut."""
        network = _network(host)
        self._network_of[connection] = network
        self._by_network.setdefault(network, {})[connection] = None
        if len(self._network_of) > self.capacity:
            self._evict_one()

    def remove(self, connection: Evictable) -> None:
        """The connection is gone, or admitted. It need not be here."""
        network = self._network_of.pop(connection, None)
        if network is not None:
            connections = self._by_network[network]
            del connections[connection]
            if not connections:
                del self._by_network[network]

    def _evict_one(self) -> None:
        most = max(self._by_network.values(), key=len)
        oldest = next(iter(most))
        self.remove(oldest)
        self._evicted += 1
        now = time.monotonic()
        if now - self._told >= limits.EVICTION_LOG_INTERVAL:
            _logger.warning("too many connections of unknown devices, the oldest are cut", cut=self._evicted)
            self._evicted, self._told = 0, now
        oldest.evict(TooManyConnections("too many connections that are not accepted yet"))


def raise_file_limit() -> int:
    """Allows this process as many open files as it may have; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, limits.MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits.MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def unadmitted_capacity(open_files: int) -> int:
    """How many connections may be unadmitted where the process may open `open_files` files: the store, the databases
    and the accepted devices need some as well."""
    return max(1, min(limits.MAX_UNADMITTED_CONNECTIONS, open_files // 4))


def _network(host: str) -> str:
    """What one owner of addresses has: an IPv4 address, or 64 bits of an IPv6 address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
