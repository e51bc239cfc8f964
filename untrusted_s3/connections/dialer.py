"""Dials the accepted peers whose addresses are known and that are not connected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.listener import parse_address
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.errors import UsageError
from untrusted_s3.store.records import PeerRecord

_logger = structlog.get_logger()


class DialedPeers(Protocol):
    """Whom to dial."""

    def records(self) -> list[PeerRecord]:
        """All accepted devices."""
        ...

    def is_connected(self, device_id: DeviceID) -> bool:
        """Whether there is a session with this device."""
        ...


class Dialer:
    """Tries every address of every peer that is not connected, at growing intervals."""

    def __init__(self, peers: DialedPeers, new_transport: Callable[[bool], BEPTransport]) -> None:
        self._peers = peers
        self._new_transport = new_transport
        self._delays: dict[DeviceID, float] = {}
        self._due: dict[DeviceID, float] = {}

    async def run(self) -> None:
        """Dials until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.gather(
                *(
                    self._dial_peer(peer)
                    for peer in self._peers.records()
                    if peer.addresses and loop.time() >= self._due.get(peer.device_id, 0)
                )
            )
            await asyncio.sleep(1)

    async def _dial_peer(self, peer: PeerRecord) -> None:
        device_id = peer.device_id
        if self._peers.is_connected(device_id):
            self._delays.pop(device_id, None)
            return
        for address in peer.addresses:
            if await self._dial(device_id, address):
                break
        delay = min(self._delays.get(device_id, limits.DIAL_INTERVAL / 4) * 2, limits.MAX_DIAL_INTERVAL)
        self._delays[device_id] = delay
        # Two gateways that dial each other must not stay in step.
        self._due[device_id] = asyncio.get_running_loop().time() + delay * random.uniform(0.7, 1)  # noqa: S311

    async def _dial(self, device_id: DeviceID, address: str) -> bool:
        try:
            host, port = parse_address(address)
            async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT):
                await asyncio.get_running_loop().create_connection(lambda: self._new_transport(False), host, port)
        except (OSError, TimeoutError, UsageError) as error:
            _logger.debug("cannot dial", device=str(device_id), address=address, error=str(error))
            return False
        return True
