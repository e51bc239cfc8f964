"""Whole gateways that have nothing to do, in virtual time on a simulated store: what they ask of it, and when devices
hear of what another gateway has written."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import structlog

from tests.file_infos import device, directory, entry
from tests.simulated import Call, SimulatedBucket, SimulatedStore
from tests.sync.judging_device import virtual_store
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.counters import Counters
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.identity.certificate import generate
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import Settings, UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, PeerRecord, StoreRecord, write_record
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.index_out import send_index

# All folders have the same entries at first.
ENTRIES = 3
# The event loop is measured, and the disk looked at, less often than usual: neither asks the store for anything.
SETTINGS = Settings(upkeep=UpkeepSettings(lag_interval=10.0, disk_interval=600.0))
# What the operations of the seam are on the wire (store/control_plane.py and store/data_plane.py).
KINDS = {"put": "PUT", "get": "GET", "size": "HEAD", "list": "LIST", "list_multipart_uploads": "LIST"}
WRITTEN_BY = device(5)


class Bucket(SimulatedBucket):
    """A simulated bucket that says where it is and counts, as a real one does."""

    location = "s3://bucket"
    requests: Mapping[str, int] = {}
    received = 0


@dataclass(slots=True)
class PeerDevice:
    """A connected device that shares a folder, has all of it, and announces nothing new. Implements `sources.Source`,
    and what `send_index` needs of a connection.

    Attributes:
        told: When it heard of each sequence number, by the loop's clock.
    """

    device_id: DeviceID
    folder: Folder
    told: dict[int, float] = field(default_factory=dict)
    _sender: asyncio.Task[None] | None = None

    @property
    def bep(self) -> PeerDevice:
        """Stands for the protocol: messages are counted only."""
        return self

    def connect(self, *, known: int = ENTRIES, only_reads: bool = False) -> None:
        """Share the folder as a session does, and know its index up to a sequence number."""
        if not only_reads:
            self.folder.start_index(self.device_id, IndexState(7, 0))
            self.folder.add_source(self.device_id, self)
        line = cast(PeerConnection, self)
        self._sender = asyncio.create_task(send_index(self.folder, self.device_id, known, line, Counters()))

    async def disconnect(self) -> None:
        """End the connection."""
        assert self._sender is not None
        self._sender.cancel()
        await asyncio.wait([self._sender])
        self.folder.remove_source(self.device_id, self)

    def index(
        self, folder: str, files: Sequence[bytes], *, update: bool, prev_sequence: int, last_sequence: int, now: float
    ) -> bytes:
        for sequence in range(prev_sequence + 1, last_sequence + 1):
            self.told[sequence] = now
        return b""

    def write(self, *pieces: bytes) -> None:
        pass

    async def drained(self) -> None:
        pass

    async def request_block(self, *args: object) -> memoryview:
        raise AssertionError("directories have no blocks")


class OtherGateway:
    """The log of a folder as another gateway writes it, of whatever version: it appends and tells nobody."""

    def __init__(self, store: SimulatedStore, folder_id: str, home: Path) -> None:
        self.state = FolderState(home / f"{folder_id}.sqlite")
        self.log = FolderLog(SimulatedBucket(store), FolderKeys.of(folder_id), self.state, WRITTEN_BY)

    async def append(self, number: int) -> int:
        """Append an entry and return its sequence number."""
        await self.log.append([entry(directory(number))])
        return self.state.sequence


@dataclass(slots=True)
class Idle:
    """Gateways on one store.

    Attributes:
        store: The store.
        gateways: The gateways, which run.
        buckets: Their clients of the store, in the same order.
        others: Another gateway's view of each folder, by ID.
    """

    store: SimulatedStore
    gateways: list[Gateway]
    buckets: list[Bucket]
    others: dict[str, OtherGateway]

    def folders(self, gateway: int = 0) -> list[Folder]:
        """Return the open folders of a gateway."""
        return list(self.gateways[gateway].folders)

    async def requests(self, *, connected: bool) -> Counter[str]:
        """Return how many requests the first gateway sends in five minutes, on average of an hour."""
        for folder in self.folders() if connected else ():
            PeerDevice(device(100), folder).connect()
        await asyncio.sleep(1500.0)
        calls = self.buckets[0].calls
        begun = len(calls)
        await asyncio.sleep(3600.0)
        found = Counter(map(request_class, calls[begun:]))
        return Counter({kind: count / 12 for kind, count in found.items()})


def request_class(call: Call) -> str:
    """Return the kind of a request and what it is for."""
    key = call.key
    what = key.removeprefix(layout.FOLDERS).partition("/")[2] if key.startswith(layout.FOLDERS) else key
    return f"{KINDS.get(call.operation, call.operation)} {what.partition('/')[0] or layout.FOLDERS}"


def by_kind(requests: Mapping[str, float]) -> dict[str, float]:
    """Add up requests by their kinds alone."""
    found: Counter[str] = Counter()
    for name, count in requests.items():
        found[name.partition(" ")[0]] += count  # type: ignore[assignment]
    return {kind: round(count, 2) for kind, count in sorted(found.items())}


@contextlib.asynccontextmanager
async def idle_gateways(home: Path, *, folders: int = 2, gateways: int = 1, devices: int = 2) -> AsyncIterator[Idle]:
    """Run gateways on a store with folders that have something, and with accepted devices that are not connected."""
    store = virtual_store()
    setup = SimulatedBucket(store)
    await write_record(setup, layout.STORE, StoreRecord("a" * 32).to_json())
    for number in range(devices):
        record = PeerRecord(device(100 + number), "device")
        await write_record(setup, layout.peer_key(record.device_id), record.to_json())
    others = {}
    for number in range(folders):
        folder_id = f"f{number}"
        await write_record(setup, FolderKeys.of(folder_id).record, FolderRecord(folder_id, "", bytes(40)).to_json())
        others[folder_id] = other = OtherGateway(store, folder_id, home)
        for name in range(ENTRIES):
            await other.append(name)
    idle = Idle(store, [], [], others)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(gateways):
            bucket = Bucket(store)
            settings = GatewaySettings((), None, f"gateway {number}", home / f"gateway-{number}", tuning=SETTINGS)
            gateway = Gateway(bucket, generate(), settings)
            stack.push_async_callback(gateway.stop)
            await gateway.start()
            idle.gateways.append(gateway)
            idle.buckets.append(bucket)
        for other in others.values():
            stack.callback(other.state.close)
        yield idle


async def _measure(*, folders: int, gateways: int, connected: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        async with idle_gateways(Path(home), folders=folders, gateways=gateways) as idle:
            return by_kind(await idle.requests(connected=connected))


def main() -> None:
    """Print the table of docs/performance.md."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for folders, gateways, connected in itertools.product((2, 20), (1, 2), (False, True)):
        found = run_in_virtual_time(_measure(folders=folders, gateways=gateways, connected=connected))
        print(folders, gateways, "devices" if connected else "no devices", found)


if __name__ == "__main__":
    main()
