"""The peers from which a folder's blocks come: who is connected, and who is asked for a block.

A trusted device encrypts for us. An untrusted one holds encrypted data as we do, and nobody here can check what it
gives: it is asked only for versions that no connected trusted device announces or gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.objects.assembly import FetchBlock
from untrusted_s3.settings import SyncSettings
from untrusted_s3.supervisor import TaskSet

_SETTINGS = SyncSettings()


class Source(Protocol):
    """A connected peer that shares a folder."""

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        """Return one encrypted block. Raises BlockUnavailable."""
        ...


class Sources:
    """The connected peers that share one folder."""

    def __init__(self, folder_id: str, pending: PendingIndex, settings: SyncSettings = _SETTINGS) -> None:
        self._settings = settings
        self._folder_id = folder_id
        self._pending = pending
        self._connected: dict[DeviceID, Source] = {}
        # Those that have shared the folder as untrusted devices when they did last.
        self._untrusted: set[DeviceID] = set()
        self._gateways: set[DeviceID] = set()

    @property
    def connected(self) -> Mapping[DeviceID, Source]:
        """The connected peers by device ID."""
        return self._connected

    def add(self, device_id: DeviceID, source: Source, *, trusted: bool = True, gateway: bool = False) -> None:
        """Add a peer; it replaces an earlier connection of the same device.

        `gateway` says whether an untrusted one is a gateway too, which speaks for the devices behind it.
        """
        self._connected[device_id] = source
        if gateway:
            self._gateways.add(device_id)
        else:
            self._gateways.discard(device_id)
        if trusted:
            self._untrusted.discard(device_id)
        else:
            self._untrusted.add(device_id)

    def remove(self, device_id: DeviceID, source: Source) -> bool:
        """Remove a peer, unless another connection of the device has replaced it. Return whether it was removed."""
        if self._connected.get(device_id) is not source:
            return False
        del self._connected[device_id]
        return True

    def is_trusted(self, device_id: DeviceID) -> bool:
        """Return whether a device encrypts for us, as it said last; one that has not shared the folder counts so."""
        return device_id not in self._untrusted

    def is_gateway(self, device_id: DeviceID) -> bool:
        """Return whether an untrusted device is a gateway too, as it said last."""
        return device_id in self._gateways

    def judges(self, device_id: DeviceID) -> bool:
        """Return whether what a device announces is a claim: it is trusted, or a gateway with devices behind it."""
        return self.is_trusted(device_id) or self.is_gateway(device_id)

    def announcing(self, entry: Pending) -> list[DeviceID]:
        """Return the devices that have announced this content: trusted ones under whichever version."""
        return [
            other.device_id
            for other in self._pending.of_name(entry.name_hash)
            if other.content_hash == entry.content_hash
            and (other.version == entry.version or self.is_trusted(other.device_id))
        ]

    def givers(self, announcing: Iterable[DeviceID]) -> Sequence[DeviceID | None]:
        """Return whom to ask for a version that devices announce, in order.

        None stands for all trusted devices, others for themselves.
        """
        connected = [device_id for device_id in announcing if device_id in self._connected]
        untrusted: list[DeviceID | None] = [device_id for device_id in connected if not self.is_trusted(device_id)]
        return untrusted if untrusted and len(untrusted) == len(connected) else [None, *untrusted]

    def fetcher(
        self, entry: Pending, name: str, giver: DeviceID | None = None, announcing: Iterable[DeviceID] | None = None
    ) -> FetchBlock:
        """Return a function that gets blocks of a version of a file, from each peer that announces its content in turn.

        `name` is the encrypted name; `announcing` are the devices that announce the content now, where they are known.
        Only trusted devices are asked, or only `giver`. A peer that does not give a block within `second_source_after`
        holds up the file no longer if another one announces it: that is asked too, and comes first for the blocks that
        follow. The function raises BlockUnavailable when none of them gives the block.
        """
        asked = self._asked(self.announcing(entry) if announcing is None else announcing, giver)
        slow: list[Source] = []

        async def fetch_block(number: int, block: pb.BlockInfo) -> memoryview:
            nonlocal asked
            reason = "no connected peer has it"
            tried: list[Source] = []
            requests = TaskSet()
            waiting: dict[asyncio.Task[memoryview], Source] = {}
            try:
                while True:
                    untried = self._untried(asked, tried)
                    if not untried and not waiting:
                        # A peer may have announced the version, or have reconnected, since this pull began.
                        asked = self._asked(self.announcing(entry), giver)
                        untried = self._untried(asked, tried)
                    if not untried and not waiting:
                        raise BlockUnavailable(f"block {number}: {reason}")
                    if untried:
                        source = _in_turn([one for one in untried if one not in slow] or untried, number)
                        tried.append(source)
                        request = source.request_block(self._folder_id, name, number, block)
                        if not waiting and len(untried) == 1:
                            try:
                                return await request
                            except BlockUnavailable as error:
                                reason = str(error)
                                continue
                        waiting[requests.start(request)] = source
                    more = len(untried) > 1
                    patience = self._settings.second_source_after if more else None
                    done, _ = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                    if not done:
                        slow.extend(one for one in waiting.values() if one not in slow)
                    for task in done:
                        del waiting[task]
                        try:
                            return task.result()
                        except BlockUnavailable as error:
                            reason = str(error)
            finally:
                await requests.cancel()

        return fetch_block

    def _asked(self, announcing: Iterable[DeviceID], giver: DeviceID | None) -> list[DeviceID]:
        """Return which of the devices that have announced a content may be asked: the trusted ones, or `giver`."""
        return [one for one in announcing if one == giver or (giver is None and self.is_trusted(one))]

    def _untried(self, devices: Iterable[DeviceID], tried: Sequence[Source]) -> list[Source]:
        sources = (self._connected.get(device_id) for device_id in devices)
        return [source for source in sources if source is not None and source not in tried]


def _in_turn(sources: Sequence[Source], number: int) -> Source:
    return sources[number % len(sources)]
