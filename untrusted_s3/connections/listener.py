"""Accepts connections on the addresses that the operator names."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import structlog

from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.errors import UsageError

_logger = structlog.get_logger()
_ADDRESS = re.compile(r"tcp[46]?://(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]/:]*)):(\d{1,5})/?")


def parse_address(address: str) -> tuple[str, int]:
    """Host (perhaps empty: all) and port of tcp://HOST:PORT. Raises UsageError for anything else."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[3]) > 65_535:
        raise UsageError(f"an address must look like tcp://HOST:PORT, not {address!r}")
    return match[1] or match[2], int(match[3])


class Listener:
    """TCP servers, one an address."""

    def __init__(self, addresses: Sequence[str], new_transport: Callable[[bool], BEPTransport]) -> None:
        """Raises UsageError for an address that is none."""
        self._parsed = [parse_address(address) for address in addresses]
        self._new_transport = new_transport
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Begins to accept. Raises UsageError where an address cannot be used."""
        loop = asyncio.get_running_loop()
        for host, port in self._parsed:
            try:
                server = await loop.create_server(lambda: self._new_transport(True), host or None, port, backlog=1024)
            except OSError as error:
                await self.stop()
                raise UsageError(
                    f"cannot listen on tcp://{host}:{port}: {error.strerror or error}. "
                    "Stop what uses the port, or choose another with --listen"
                ) from error
            self._servers.append(server)
        _logger.info("listening", addresses=self.addresses)

    async def stop(self) -> None:
        """Accepts nothing more; connections stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    @property
    def addresses(self) -> list[str]:
        """tcp:// addresses with the real ports."""
        return [
            f"tcp://{_in_url(socket.getsockname()[0])}:{socket.getsockname()[1]}"
            for server in self._servers
            for socket in server.sockets
        ]


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
