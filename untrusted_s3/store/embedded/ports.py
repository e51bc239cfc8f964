"""The ports of the embedded server, all on 127.0.0.1."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from pathlib import Path
from typing import Final

from untrusted_s3.errors import StoreError
from untrusted_s3.store.embedded.files import Ports, read_last_ports

SERVICES: Final = ("s3", "master", "volume", "filer", "admin")
GRPC_OFFSET: Final = 10_000  # weed opens a second port, this much higher, for each service

# With the offset these ports are still below those of compat/ports.py and the range that Linux gives to clients.
_LOWEST_PORT, _HIGHEST_PORT = 10_000, 16_000
_LISTENING = "0A"  # proc(5), /proc/net/tcp


def choose_ports(directory: Path | None) -> Ports:
    """Return a free port for each service.

    They are those of the last run in `directory` if all of them are free, so that the store's address stays the same.
    Raises StoreError if there are not enough free ports.
    """
    if directory is not None:
        last = read_last_ports(directory)
        if set(SERVICES) <= last.keys() and all(_is_free(last[service]) for service in SERVICES):
            return {service: last[service] for service in SERVICES}
    start = random.SystemRandom().randrange(_LOWEST_PORT, _HIGHEST_PORT - 100)
    free = (port for port in range(start, _HIGHEST_PORT) if _is_free(port))
    ports = dict(zip(SERVICES, free, strict=False))
    if len(ports) < len(SERVICES):
        raise StoreError(f"the embedded store found no free ports between {start} and {_HIGHEST_PORT}")
    return ports


def all_ports(ports: Ports) -> set[int]:
    """Return all ports that weed opens for these services."""
    return {port + offset for port in ports.values() for offset in (0, GRPC_OFFSET)}


def hold(ports: Ports) -> contextlib.ExitStack:
    """Keep `choose_ports` of other stores from taking these ports until the stack is closed. Raises OSError.

    They are free for a moment as a server ends, and what it leaves in /tmp has their numbers. Sockets of UDP hold them,
    which the server does not use.
    """
    with contextlib.ExitStack() as stack:
        for port in ports.values():
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
        return stack.pop_all()


def _is_free(port: int) -> bool:
    try:
        hold({"": port}).close()
    except (OSError, OverflowError):
        return False
    for number in (port, port + GRPC_OFFSET):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not matter
            try:
                probe.bind(("127.0.0.1", number))
                probe.listen()
            except (OSError, OverflowError):
                return False
    return True


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """Return the (host, port) pairs that a process listens on; empty without /proc, or once the process has ended."""
    try:
        descriptors = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        tables = [(Path(f"/proc/{pid}/net") / name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    except OSError:
        return set()
    sockets = {target[len("socket:[") : -1] for target in descriptors if target.startswith("socket:[")}
    addresses = set()
    for row in (line.split() for table in tables for line in table):
        if row[3] == _LISTENING and row[9] in sockets:
            host, port = row[1].split(":")
            packed = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
            family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
            addresses.add((socket.inet_ntop(family, packed), int(port, 16)))
    return addresses
