"""Decides which peers are dialed, and when."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DialFailed
from untrusted_s3.settings import ConnectionSettings
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.supervisor import TaskSet

_logger = structlog.get_logger()

_TURN_INTERVAL = 1.0  # seconds


class DialedPeers(Protocol):
    """The devices that may be dialed."""

    def records(self) -> list[PeerRecord]:
        """Return the records of all accepted devices."""
        ...

    def is_connected(self, device_id: DeviceID) -> bool:
        """Whether this device has a session."""
        ...


class Dialing:
    """Tries the addresses of every accepted device that is not connected, at growing intervals.

    `dial` connects to a device at an address, or raises DialFailed, also where another device answers. `clock` gives
    seconds and never goes back.
    """

    def __init__(
        self,
        peers: DialedPeers,
        dial: Callable[[str, DeviceID], Awaitable[None]],
        settings: ConnectionSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._peers = peers
        self._dial = dial
        self._settings = settings
        self._clock = clock
        self._delays: dict[DeviceID, float] = {}
        self._due: dict[DeviceID, float] = {}
        self._under_way: dict[DeviceID, asyncio.Task[None]] = {}
        self._tasks = TaskSet()

    async def run(self) -> None:
        """Dial until cancelled. A device that takes long to answer holds up no other."""
        try:
            while True:
                self._begin_turn()
                await asyncio.sleep(_TURN_INTERVAL)
        finally:
            await self._tasks.cancel()
            self._under_way.clear()

    async def turn(self) -> None:
        """Dial every device whose time has come, once."""
        self._begin_turn()
        await asyncio.gather(*self._under_way.values())

    def _begin_turn(self) -> None:
        for device_id, task in list(self._under_way.items()):
            if task.done():
                del self._under_way[device_id]
                task.result()
        for peer in self._peers.records():
            device_id = peer.device_id
            if peer.addresses and device_id not in self._under_way and self._clock() >= self._due.get(device_id, 0):
                self._under_way[device_id] = self._tasks.start(self._dial_peer(peer))

    async def _dial_peer(self, peer: PeerRecord) -> None:
        device_id = peer.device_id
        if self._peers.is_connected(device_id):
            self._delays.pop(device_id, None)
            return
        for address in peer.addresses:
            try:
                await self._dial(address, device_id)
                break
            except DialFailed as error:
                _logger.debug("dial failed", device=str(device_id), address=address, error=str(error))
        before = self._delays.get(device_id, self._settings.dial_interval / 4)
        delay = min(before * 2, self._settings.max_dial_interval)
        self._delays[device_id] = delay
        # Two gateways that dial each other must not stay in step.
        self._due[device_id] = self._clock() + delay * random.uniform(0.7, 1)  # noqa: S311
