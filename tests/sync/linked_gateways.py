"""Two gateways, each on a store of its own, that share the folder with each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from tests.file_infos import device
from tests.sync.judging_device import Gateway
from tests.sync.scripted_device import data_of
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import index_start
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived, RequestReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.index_out import send_index


class _End:
    """A gateway as the other one sees it. Implements `sources.Source`, and what `send_index` needs of a connection."""

    def __init__(self, number: int, gateway: Gateway) -> None:
        self.device_id = device(number)
        self.gateway = gateway
        self.bep = self
        self.sent: list[bytes] = []
        self._asks: DeviceID
        self._messages: asyncio.Queue[IndexReceived] = asyncio.Queue()

    async def share(self, other: _End, *, as_gateway: bool) -> list[asyncio.Task[None]]:
        """Share the folder with the other one. Return what sends it the index, until it is cancelled."""
        self._asks = other.device_id
        folder = other.gateway.folder
        index = self.gateway.folder.own_index
        await folder.prepare_index(self.device_id, index)
        await folder.begin_index(self.device_id, index)
        start = index_start(folder.start_index(self.device_id, index), index)
        folder.add_source(self.device_id, self, trusted=False, gateway=as_gateway)
        line = cast(PeerConnection, self)
        return [
            asyncio.create_task(send_index(self.gateway.folder, other.device_id, start, line, Counters())),
            asyncio.create_task(self._deliver(other)),
        ]

    async def _deliver(self, other: _End) -> None:
        while True:
            message = await self._messages.get()
            await other.gateway.folder.take_index(self.device_id, self.gateway.folder.own_index.index_id, message)

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        request = RequestReceived(1, folder_id, name, block.offset, block.size, block.hash, False)
        if await self.gateway.folder.requested_block(request, self._asks) is None:
            raise BlockUnavailable("no such file")
        return memoryview(data_of(block))

    def index(
        self, folder: str, files: Sequence[bytes], *, update: bool, prev_sequence: int, last_sequence: int, now: float
    ) -> bytes:
        self.sent.extend(files)
        self._messages.put_nowait(IndexReceived(folder, tuple(files), update, last_sequence, prev_sequence))
        return b""

    def write(self, *pieces: bytes) -> None:
        pass

    async def drained(self) -> None:
        pass


class Link:
    """The connection between two gateways.

    Attributes:
        ids: The device IDs of the first and the second one.
    """

    def __init__(self, one: Gateway, other: Gateway, *, as_gateways: bool = True) -> None:
        """Without `as_gateways` each takes the other one for a native untrusted device."""
        self._ends = _End(101, one), _End(102, other)
        self._as_gateways = as_gateways
        self._tasks: list[asyncio.Task[None]] = []
        self.ids = self._ends[0].device_id, self._ends[1].device_id

    @property
    def entries_sent(self) -> int:
        """How many index entries both have sent."""
        return sum(len(end.sent) for end in self._ends)

    async def connect(self) -> None:
        """Share the folder in both directions."""
        one, other = self._ends
        for end, peer in ((one, other), (other, one)):
            self._tasks += await end.share(peer, as_gateway=self._as_gateways)

    async def disconnect(self) -> None:
        """End the connection."""
        one, other = self._ends
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._tasks = []
        one.gateway.folder.remove_source(other.device_id, other)
        other.gateway.folder.remove_source(one.device_id, one)
