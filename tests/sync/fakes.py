"""Folders with small settings, a puller on its own, and peers that serve made-up blocks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.file_infos import device, encrypted_name
from tests.simulated import SimulatedBucket
from tests.virtual_time import settled
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.pending import Announced, Pending, PendingIndex
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import ClaimSettings, ObjectSettings, Settings, SyncSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import PART_GRID, PartGrid
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.claiming import Claiming
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.puller import Puller
from untrusted_s3.sync.sources import Sources

DEFAULTS = Settings()
SYNC_DEFAULTS = SyncSettings()


def sync_memory(
    blocks: int = 2_000_000,
    messages: int = 1 << 30,
    parsed: int = 1 << 20,
    in_work: int = 1 << 20,
    pending: int = 1 << 30,
) -> SyncMemory:
    """Return accounts that are large enough for a test."""
    return SyncMemory.of(
        blocks=blocks,
        messages=messages,
        parsed=parsed,
        in_work=in_work,
        pending=pending,
        large_entries=1 << 20,
        settings=SYNC_DEFAULTS,
    )


def claiming(state: FolderState, pending: PendingIndex, sources: Sources) -> Claiming:
    """Return the claims of a folder without a log: what is to be written there is dropped."""
    return Claiming(
        state,
        pending,
        sources,
        ClaimSettings(),
        change=lambda change: None,
        confirm=lambda device_id, sequence: None,
        on_chance=lambda: None,
        in_work=lambda key: False,
        time_of_day=lambda: 0.0,
    )


def new_folder(
    record: FolderRecord,
    bucket: Bucket,
    directory: Path,
    *,
    own_id: DeviceID | None = None,
    memory: SyncMemory | None = None,
    counters: Counters | None = None,
    settings: Settings = DEFAULTS,
    grid: PartGrid = PART_GRID,
) -> Folder:
    """Return a folder that is not open yet."""
    return Folder(
        record,
        bucket,
        own_id or device(9),
        directory,
        memory or sync_memory(),
        UploadLimits.of(ObjectSettings()),
        counters or Counters(),
        settings,
        grid,
    )


async def run(folder: Folder) -> None:
    """Do a folder's background work until cancelled."""
    async with asyncio.TaskGroup() as group:
        for work in folder.tasks().values():
            group.create_task(work())


@contextlib.asynccontextmanager
async def working(folder: Folder) -> AsyncIterator[Folder]:
    """Let a folder that is open work until the block ends."""
    tasks = [asyncio.create_task(work()) for work in folder.tasks().values()]
    yield folder
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    folder.close()


def has(folder: Folder, info: FileInfo) -> bool:
    """Return whether the log has this file info or a newer one."""
    found = folder.entry(info.name)
    return found is not None and not is_newer(info.message.version, found.file_info.message.version)


def announced(info: FileInfo) -> Announced:
    """Return a file info as the pending index takes it."""
    return Announced(info, content_hash(info) if info.has_data else None)


def name_key(name: str | int) -> bytes:
    """Return the name hash of a made-up plain name."""
    return hashlib.sha256(encrypted_name(name).encode()).digest()[:16]


class FakeSource:
    """A peer that has every block but those of the names in `lacks`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.lacks: set[str] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        assert folder_id == "folder"
        self.asked.append((name, number))
        self.times.append(asyncio.get_running_loop().time())
        await self.go_on.wait()
        await asyncio.sleep(0)
        if name in self.lacks:
            raise BlockUnavailable("no such file")
        return memoryview(hashlib.shake_128(block.hash).digest(block.size))

    def asked_for(self, name: str | int) -> list[int]:
        """Return the numbers of the requested blocks of a file."""
        return [number for asked, number in self.asked if asked == encrypted_name(name)]


class PausingSource(FakeSource):
    """A peer that waits for `go_on` once it has been asked for so many blocks."""

    def __init__(self, pause_after: int = 0) -> None:
        super().__init__()
        self.go_on.clear()
        self.pause_after = pause_after

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        if len(self.asked) < self.pause_after:
            self.go_on.set()
        elif len(self.asked) == self.pause_after:
            self.go_on.clear()
        return await super().request_block(folder_id, name, number, block)


class Pulling:
    """A puller and what it works on. An entry that it commits is in the log at once unless `hold` is set."""

    def __init__(
        self,
        directory: Path,
        bucket: SimulatedBucket,
        *,
        settings: SyncSettings = SYNC_DEFAULTS,
        grid: PartGrid = PART_GRID,
        budget: int = 1_000_000,
    ) -> None:
        self.bucket = bucket
        self.state = FolderState(directory / "state.sqlite")
        self.pending = PendingIndex(directory / "pending.sqlite")
        self.counters = Counters()
        self.settings = settings
        self.memory = sync_memory(in_work=settings.file_infos_in_work)
        self.committed: list[Entry] = []
        self.hold = False
        self.held: list[tuple[Pending, Entry]] = []
        self.task: asyncio.Task[None]
        self.blocks = Account(budget)
        self._grid = grid
        self.puller = self.new_puller()

    def new_puller(self) -> Puller:
        """Return a new puller, as after a restart."""
        writer = ObjectWriter(
            self.bucket,
            FolderKeys.of("folder"),
            self.blocks,
            UploadLimits.of(ObjectSettings()),
            self.counters,
            ObjectSettings(),
            self._grid,
        )
        sources = Sources("folder", self.pending, self.settings)
        return Puller(
            "folder",
            self.state,
            self.pending,
            writer,
            self._commit,
            self.counters,
            self.settings,
            self.memory,
            sources,
            claiming(self.state, self.pending, sources),
        )

    def start(self) -> None:
        """Let the puller work."""
        self.task = asyncio.ensure_future(self.puller.run())

    async def stop(self) -> None:
        """End the puller's work."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _commit(self, pending: Pending, change: Entry) -> None:
        self.committed.append(change)
        if self.hold:
            self.held.append((pending, change))
        else:
            asyncio.get_running_loop().call_soon(self.write_down, change)

    def write_held(self, count: int) -> None:
        """Write entries that were held to the log."""
        held, self.held = self.held[:count], self.held[count:]
        for _, change in held:
            self.write_down(change)

    def write_down(self, change: Entry) -> None:
        """Write an entry to the log."""
        if self.state.wants(change.file_info):
            segment = Segment(device(9), bytes(16), 0, self.state.sequence + 1, (change,), ())
            self.state.apply(self.state.position + 1, segment)
        key = hashlib.sha256(change.file_info.name.encode()).digest()[:16]
        others = self.pending.of_name(key)
        done = self.pending.remove([other for other in others if not self.state.wants_version(key, other.vector)])
        self.puller.committed(key, key not in done)

    def announce(self, one: DeviceID, *infos: FileInfo) -> None:
        """Take an index update of a device."""
        last = max(info.message.sequence for info in infos)
        self.pending.add(one, IndexState(7, last), [announced(info) for info in infos], [])
        self.puller.wake()

    @property
    def names(self) -> list[str]:
        """The encrypted names that were committed."""
        return [change.file_info.name for change in self.committed]

    def versions(self, name: str | int) -> list[int]:
        """Return the versions of a file that were committed."""
        wanted = encrypted_name(name)
        return [
            change.file_info.message.version.counters[0].value
            for change in self.committed
            if change.file_info.name == wanted
        ]

    @property
    def failures(self) -> float | None:
        """The number of failed pulls that the gateway has counted."""
        return self.counters.registry.get_sample_value("untrusted_s3_pull_failures_total")


@contextlib.asynccontextmanager
async def running(pulling: Pulling) -> AsyncIterator[Pulling]:
    """Let the puller work until the block ends."""
    pulling.start()
    yield pulling
    await pulling.stop()
    await settled()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "running pulls end with it"
    pulling.state.close()
    pulling.pending.close()
