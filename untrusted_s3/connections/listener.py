"""Listens on addresses of any known scheme."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.registry import SCHEMES, SchemeRegistry

_logger = structlog.get_logger()


class Listener:
    """One listener for each address."""

    def __init__(
        self, addresses: Sequence[str], transports: TransportFactory, schemes: SchemeRegistry = SCHEMES
    ) -> None:
        """Raises UsageError for an address that cannot be parsed."""
        parsed = [schemes.parse(address) for address in addresses]
        self._listeners = [schemes.get(address.scheme).listener(address, transports) for address in parsed]

    async def start(self) -> None:
        """Begin to accept connections on all addresses, or on none: raises AddressUnavailable if one cannot be used."""
        try:
            for listener in self._listeners:
                await listener.start()
        except BaseException:
            await self.stop()
            raise
        _logger.info("listening", addresses=self.addresses)

    async def keep_listening(self, interval: float) -> None:
        """Look every so many seconds whether connections are still accepted, and begin again where not."""
        while True:
            await asyncio.sleep(interval)
            for listener in self._listeners:
                await listener.listen_again()

    async def stop(self) -> None:
        """Stop accepting connections. Those that are made stay open."""
        for listener in self._listeners:
            await listener.stop()

    @property
    def addresses(self) -> list[str]:
        """The addresses that peers can dial, with the real ports."""
        return [str(address) for listener in self._listeners for address in listener.addresses]
