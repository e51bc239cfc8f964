"""Every version that a trusted device announces while it is connected long enough can be read as of that moment: random
stories with the real encryption and Syncthing's rule of who wins, with checkpoints, trimming and crashes between."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.sync.judging_device import START, Gateway, Judge
from tests.sync.scripted_device import KEYS, RECORD
from tests.vault.stored_folder import BLOCK_SIZE, PASSWORD, derive
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.crypto.file_info import decrypt_file_info, encrypt_file_info
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.history import load_as_of
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import trim
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.units import DAY
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.reading import BlockReader
from untrusted_s3.vault.winner import wins

pytestmark = virtual_time

PATHS = ("report.txt", "photo.jpg")
# After a device has been connected for this long with a version, the version is stored.
LONG_ENOUGH = 150.0
HISTORY = 1.0 * DAY
SETTINGS = Settings(
    log=LogSettings(segment_interval=0.0, checkpoint_cost=3 * LogSettings().segment_cost, checkpoint_share=0.0)
)


class Clock:
    """The time of day: that of the event loop, and what the test lets pass beside it."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return START + self.offset + asyncio.get_running_loop().time()


class Author(Judge):
    """A device with the folder's password. `blocks` are the encrypted blocks of all devices, by token."""

    def __init__(self, number: int, blocks: dict[bytes, bytes]) -> None:
        super().__init__(number)
        self._key = derive(PASSWORD, RECORD.folder_id)
        self._short = int.from_bytes(self.device_id.raw[:8], "big")
        self._blocks = blocks

    def real(self, path: str) -> pb.FileInfo | None:
        """Return what it has of a file."""
        own = self.files.get(self._key.encrypt_name(path))
        return decrypt_file_info(self._key, own) if own is not None else None

    def write(self, path: str, data: bytes | None, now: float) -> None:
        """Write a file, or delete it."""
        before = self.real(path)
        counters = {one.id: one.value for one in before.version.counters} if before is not None else {}
        counters[self._short] = max(counters.get(self._short, 0) + 1, int(now))
        real = pb.FileInfo(name=path, type=pb.FILE, permissions=0o644, modified_s=int(now), modified_by=self._short)
        real.version.counters.extend(pb.Counter(id=one, value=value) for one, value in sorted(counters.items()))
        if data is None:
            real.deleted = True
        else:
            digest = hashlib.sha256(data).digest()
            real.size, real.block_size = len(data), BLOCK_SIZE
            real.blocks.add(size=len(data), hash=digest)
            real.blocks_hash = hashlib.sha256(digest).digest()
        fake = encrypt_file_info(self._key, real)
        if data is not None:
            self._blocks[fake.blocks[0].hash] = self._key.file_key(path).encrypt_block(data)
        self.edit(parse_file_info(fake.SerializeToString()))

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        await asyncio.sleep(0.1)
        if block.hash not in [one.hash for one in self.files[name].message.blocks]:
            raise BlockUnavailable("no such file")
        return memoryview(self._blocks[block.hash])

    def _wants(self, info: FileInfo, own: FileInfo | None) -> bool:
        return own is None or wins(decrypt_file_info(self._key, info), decrypt_file_info(self._key, own))


@dataclass(frozen=True)
class Announced:
    """What a device has announced for a while, at a moment in seconds since 1970."""

    time: float
    real: pb.FileInfo
    data: bytes


class Story:
    """Devices, a gateway, and what was announced."""

    def __init__(self, seed: int, home: Path) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.store = SimulatedStore(self.clock, enforce_lifetimes=False)
        self.gateway = Gateway(self.store, home / "state", SETTINGS)
        self.blocks: dict[bytes, bytes] = {}
        self.devices = [Author(number, self.blocks) for number in range(1, 3 + seed % 2)]
        self.announced: list[Announced] = []
        self._data: dict[bytes, bytes] = {}

    async def step(self) -> None:
        """Let something happen, and sometimes nothing for long enough."""
        one = self.random.choice(self.devices)
        match self.random.randrange(14):
            case 0 | 1:
                self._write(one, self.random.choice(PATHS))
            case 2 | 3 | 12:
                path = self.random.choice(PATHS)
                for author in self.random.sample(self.devices, 2):  # neither knows of the other's change
                    self._write(author, path)
            case 4 | 5 | 6:
                if one.folder is None:
                    await one.connect(self.gateway.folder)
            case 7 | 13:
                await one.disconnect()
            case 8:
                connected = [other for other in self.devices if other.folder is not None]
                await self.gateway.restart(*connected, keep_state=self.random.random() < 0.5)
            case 9:
                self.clock.offset += self.random.choice((60, 3600, 20_000))
            case 10:
                await trim(SimulatedBucket(self.store), KEYS, HISTORY)
            case 11:
                if one.folder is None:
                    one.reset()
        if self.random.random() < 0.5:
            await asyncio.sleep(LONG_ENOUGH + 30)
            self._note()
        else:
            await asyncio.sleep(self.random.choice((0.0, 0.1, 2.0, 30.0)))

    def _write(self, one: Author, path: str) -> None:
        if one.real(path) is not None and self.random.random() < 0.2:
            one.write(path, None, self.clock())
            return
        data = self.random.randbytes(self.random.choice((10, 10, 3000)))
        self._data[hashlib.sha256(data).digest()] = data
        # Clocks differ, so that a later change need not win.
        one.write(path, data, self.clock() + self.random.choice((-1000, 0, 0, 1000)))

    def _note(self) -> None:
        for one in self.devices:
            for path in PATHS:
                real = one.real(path) if one.folder is not None else None
                if real is not None:
                    data = b"" if real.deleted else self._data[real.blocks[0].hash]
                    self.announced.append(Announced(self.clock() - 1, real, data))

    async def settle(self) -> None:
        """Let all devices meet the gateway in turn, until nothing changes any more."""
        for _ in range(4):
            for one in self.devices:
                if one.folder is None:
                    await one.connect(self.gateway.folder)
                await asyncio.sleep(LONG_ENOUGH + 30)
                self._note()
                await one.disconnect()

    async def check(self) -> int:
        """Read what was announced within the history, as of the moment when it was. Return how much that is."""
        checked = 0
        for time in sorted({one.time for one in self.announced}):
            if time < self.clock() - HISTORY:
                continue
            state = FolderState(Path(tempfile.mkdtemp(dir=self.gateway.home), "state.sqlite"))
            bucket = SimulatedBucket(self.store)
            await load_as_of(bucket, KEYS, state, int(time * 1000))
            folder = Folder(bucket, RECORD, derive(PASSWORD, RECORD.folder_id), state)
            found = [one for one in folder.entries(deleted=True, versions=True) if isinstance(one, Entry)]
            copies = [one for one in folder.entries(conflicts=True) if isinstance(one, Entry) and one.conflict_of]
            async with BlockReader(folder) as reader:
                for one in self.announced:
                    if one.time == time:
                        await _check(one, found, copies, reader, folder)
                        checked += 1
            folder.close()
        return checked


async def _check(one: Announced, found: list[Entry], copies: list[Entry], reader: BlockReader, folder: Folder) -> None:
    """Check that a version is among those that are found: it, or a conflict copy of it, can be restored."""
    stored = folder.state.versions(folder.key.encrypt_name(one.real.name))
    versions = [decrypt_file_info(folder.key, version.file_info) for version in stored]
    assert one.real.version in [real.version for real in versions], f"{one.real.name} as of {one.time}"
    if one.real.deleted:
        return  # nothing to restore
    same = [entry for entry in found if entry.path == one.real.name and entry.real.version == one.real.version]
    assert len(same) == 1, f"{one.real.name} as of {one.time}"
    entry = same[0]
    assert await reader.read(entry) == one.data
    winner = next(other for other in found if other.path == one.real.name and not other.is_other)
    if entry.is_other and wins_in_conflict(winner.real, entry.real):
        assert [copy for copy in copies if copy.real == entry.real]


def wins_in_conflict(winner: pb.FileInfo, loser: pb.FileInfo) -> bool:
    """Return whether neither of two versions is based on the other one."""
    ours = {counter.id: counter.value for counter in winner.version.counters}
    return any(counter.value > ours.get(counter.id, 0) for counter in loser.version.counters)


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_announced_can_be_restored(seed: int) -> None:
    with inline_threads(), fast_directory() as home:
        story = Story(seed, home)
        await story.gateway.start()
        for _ in range(40):
            await story.step()
        for one in story.devices:
            await one.disconnect()
        await story.settle()
        assert await story.check() > 20
        for path in PATHS:
            assert len({real.version.SerializeToString() for one in story.devices if (real := one.real(path))}) <= 1
        assert all(one.sees_complete() for one in story.devices)
        await story.gateway.close()
