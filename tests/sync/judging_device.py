"""Trusted devices that judge which version wins, and gateways that they meet, in virtual time.

The rank of a version, which nobody but its devices can see, is its modification time.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.file_infos import deleted, encrypted_name, file
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.sync.fakes import new_folder, run
from tests.sync.scripted_device import KEYS, RECORD, Device
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState, index_start
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.row import Row, VersionKey
from untrusted_s3.index.segment import Segment, decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.index_out import send_index

START = 1_700_000_000
SETTINGS = Settings(log=LogSettings(segment_interval=0.0))


def virtual_store() -> SimulatedStore:
    """Return a store whose clock is the event loop's."""
    return SimulatedStore(lambda: START + asyncio.get_running_loop().time())


def version(name: str | int, number: int, rank: int, *, gone: bool = False, content: int | None = None) -> FileInfo:
    """Return a version of a file. Of two versions that devices have, the one of the higher rank wins."""
    info = deleted(name, number) if gone else file(name, number, content=rank if content is None else content)
    message = pb.FileInfo.FromString(info.raw)
    message.modified_s = rank
    return parse_file_info(message.SerializeToString())


def number_of(info: FileInfo) -> int:
    """Return what an untrusted device sees of a version's vector."""
    return info.message.version.counters[0].value


class Judge(Device):
    """A trusted device that takes over what wins over its own version, and announces what it has.

    Attributes:
        takes_over: Whether it takes over anything: a send-only folder does not.
        waits: Whether it takes over nothing for now.
        gives: Whether it has the data of its files.
        shown: What it was sent of the gateway's index, by name.
        sent: The sequence numbers and names that it was sent, in order.
    """

    def __init__(self, number: int, *, takes_over: bool = True) -> None:
        super().__init__(number)
        self.takes_over = takes_over
        self.waits = False
        self.gives = True
        self.shown: dict[str, FileInfo] = {}
        self.sent: list[tuple[int, str]] = []
        self.folder: Folder | None = None
        self._known = IndexState()
        self._considered: asyncio.Queue[str] = asyncio.Queue()
        self._to_announce = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # What happens to its files

    def edit(self, info: FileInfo) -> None:
        """Make a version."""
        self.take(info)
        self._to_announce.set()

    def ignore(self, name: str | int) -> None:
        """Announce a file as one that the device ignores."""
        message = pb.FileInfo.FromString(self.files[encrypted_name(name)].raw)
        message.invalid = True
        del message.blocks[:]
        message.size = 0
        self.edit(parse_file_info(message.SerializeToString()))

    def reset(self) -> None:
        """Forget what the other side knows of the index: all of it is sent again under another id."""
        assert self.folder is None
        self.index_id += 100
        self.sequence = 0
        for info in list(self.files.values()):
            self.take(info)

    def number(self, name: str | int) -> int | None:
        """Return the number of the version that it has of a file."""
        own = self.files.get(encrypted_name(name))
        return number_of(own) if own is not None else None

    def sees_complete(self) -> bool:
        """Return whether it is shown just what it has: it sees the gateway at 100 %."""
        return all(
            name in self.shown and VersionKey.of(self.shown[name]) == VersionKey.of(own)
            for name, own in self.files.items()
            if not own.message.invalid
        )

    # Connections

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        if not self.gives:
            raise BlockUnavailable("no such file")
        return await super().request_block(folder_id, name, number, block)

    async def connect(self, folder: Folder) -> None:
        """Share the folder, as a session does."""
        assert self.folder is None
        announced = IndexState(self.index_id, self.sequence)
        await folder.prepare_index(self.device_id, announced)
        await folder.begin_index(self.device_id, announced)
        folder.start_index(self.device_id, announced)
        start = index_start(self._known, folder.own_index)
        if not start:
            self.shown.clear()
        self._known = IndexState(folder.own_index.index_id, start)
        self.folder = folder
        self._to_announce.set()
        for name in self.shown:
            self._considered.put_nowait(name)
        line = cast(PeerConnection, _Line(self))
        self._tasks = [
            asyncio.create_task(send_index(folder, self.device_id, start, line, Counters())),
            asyncio.create_task(self._announce_all()),
            asyncio.create_task(self._pull_all()),
        ]
        folder.add_source(self.device_id, self)

    async def disconnect(self) -> None:
        """End the connection, if there is one."""
        if self.folder is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            self.folder.remove_source(self.device_id, self)
            self.folder = None

    def sent_index(self, files: Sequence[bytes], *, update: bool, prev_sequence: int) -> None:
        """Take a part of the gateway's index."""
        assert self.folder is not None
        assert prev_sequence == self._known.max_sequence and update == (prev_sequence > 0)
        for raw in files:
            info = parse_file_info(raw)
            assert info.message.sequence > self._known.max_sequence, "sequence numbers rise"
            self._known = IndexState(self._known.index_id, info.message.sequence)
            self.sent.append((info.message.sequence, info.name))
            self.shown[info.name] = info
            self._considered.put_nowait(info.name)

    def try_again(self) -> None:
        """Take over what could not be taken over before."""
        self.waits = False
        for name in self.shown:
            self._considered.put_nowait(name)

    async def _pull_all(self) -> None:
        while True:
            name = await self._considered.get()
            info, own = self.shown[name], self.files.get(name)
            if self._wants(info, own) and await self._fetch(info) and self.files.get(name) is own:
                self.edit(info)

    def _wants(self, info: FileInfo, own: FileInfo | None) -> bool:
        if self.waits or not self.takes_over or (own is not None and own.message.invalid):
            return False
        return own is None or info.message.modified_s > own.message.modified_s

    async def _fetch(self, info: FileInfo) -> bool:
        assert self.folder is not None
        for block in info.message.blocks if info.has_data else ():
            request = RequestReceived(1, "folder", info.name, block.offset, block.size, block.hash, False)
            if await self.folder.requested_block(request, self.device_id) is None:
                return False  # changed meanwhile: the gateway sends what it has then
        return True

    async def _announce_all(self) -> None:
        while True:
            await self._to_announce.wait()
            self._to_announce.clear()
            assert self.folder is not None
            while self.after(self.folder.received(self.device_id).max_sequence):
                await self.announce(self.folder, 1000)


class _Line:
    """A connection that hands over what it is to send. Implements what `send_index` needs of a PeerConnection."""

    def __init__(self, judge: Judge) -> None:
        self.bep = self
        self._judge = judge

    def index(
        self, folder: str, files: Sequence[bytes], *, update: bool, prev_sequence: int, last_sequence: int, now: float
    ) -> bytes:
        self._judge.sent_index(files, update=update, prev_sequence=prev_sequence)
        assert last_sequence == self._judge.sent[-1][0]
        return b""

    def write(self, *pieces: bytes) -> None:
        pass

    async def drained(self) -> None:
        pass


class Gateway:
    """A gateway's folder on a store, which may crash."""

    def __init__(self, store: SimulatedStore, home: Path, settings: Settings = SETTINGS, **bucket: Any) -> None:
        self.store, self.home, self._settings = store, home, settings
        self._bucket = bucket
        self._view = FolderState(home.with_suffix(".view"))  # what the log says
        self.folder: Folder
        self.bucket: SimulatedBucket
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        """Open the folder, and do its work."""
        self.bucket = SimulatedBucket(self.store, **self._bucket)
        self.folder = new_folder(RECORD, self.bucket, self.home, settings=self._settings)
        await self.folder.open()
        self._task = asyncio.ensure_future(run(self.folder))

    async def crash(self, *, keep_state: bool = True) -> None:
        """End at once. All devices must be disconnected."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self.folder.close()
        if not keep_state:
            shutil.rmtree(self.home)

    async def restart(self, *judges: Judge, keep_state: bool = True) -> None:
        """Crash and start again while devices are connected, which come again."""
        for judge in judges:
            await judge.disconnect()
        await self.crash(keep_state=keep_state)
        await self.start()
        for judge in judges:
            await judge.connect(self.folder)

    def row(self, name: str | int) -> Row | None:
        """Return what the log says of a name."""
        while self.store.keys(key := KEYS.segment(self._view.position + 1)):
            self._view.apply(self._view.position + 1, decode_segment(self.store.body(key), key))
        return self._view.row(name_key(encrypted_name(name)))

    async def close(self) -> None:
        """End, and close what `row` reads."""
        await self.crash()
        self._view.close()

    def numbers(self, name: str | int) -> list[int]:
        """Return the numbers of the stored versions of a name, the current one first."""
        row = self.row(name)
        return [found.number for found in row.claims.versions] if row is not None else []

    def claimed(self, name: str | int) -> dict[DeviceID, int]:
        """Return the number of the version that each device claims."""
        row = self.row(name)
        return {one: found.number for one, found in row.claims.claimed.items()} if row is not None else {}


def segments(store: SimulatedStore) -> list[Segment]:
    """Return the log of the folder, as far as it is there."""
    return [decode_segment(store.body(key), key) for key in store.keys(f"{KEYS.base}log/")]


def logged(store: SimulatedStore) -> list[Entry]:
    """Return all entries of the log."""
    return [entry for segment in segments(store) for entry in segment.entries]
