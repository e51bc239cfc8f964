"""A folder on a simulated store, its log, and its garbage."""

from __future__ import annotations

from pathlib import Path

from tests.file_infos import device, entry, file
from tests.simulated import SimulatedBucket, SimulatedClock
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import trim
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import DAY
from untrusted_s3.upkeep.garbage import Collected, GarbageCollector, GarbageSettings

KEYS = FolderKeys.of("folder")
HISTORY = 30 * DAY
SETTINGS = GarbageSettings(deletions_per_second=0.0)


class Stored:
    """A folder and its log."""

    def __init__(self, directory: Path) -> None:
        self.bucket = SimulatedBucket()
        self.store = self.bucket.store
        assert isinstance(self.store.clock, SimulatedClock)
        self.clock = self.store.clock
        self.state = FolderState(directory / "state.sqlite")
        self.log = FolderLog(self.bucket, KEYS, self.state, device(1), clock=self.clock)

    async def write(self, *versions: tuple[str, int]) -> list[str]:
        """Write versions of files, each with another content, in one segment. Return the keys of their objects."""
        entries = [entry(file(name, version, content=version)) for name, version in versions]
        keys = [self.put(one) for one in entries]
        await self.log.append(entries)
        return keys

    def put(self, one: Entry) -> str:
        """Put the object of an entry."""
        assert one.stored is not None
        key = KEYS.object(one.file_info.name, one.stored.object_name)
        self.store.put(key, bytes(one.stored.size))
        return key

    def pass_days(self, days: float) -> None:
        self.clock.now += days * DAY

    def collector(self) -> GarbageCollector:
        return GarbageCollector(self.bucket, KEYS, clock=self.clock, settings=SETTINGS)

    async def turn(self, history: float = HISTORY) -> Collected:
        """Clean up the log, and collect, as a gateway does."""
        await trim(self.bucket, KEYS, history, clock=self.clock)
        return await self.collector().collect()

    @property
    def objects(self) -> set[str]:
        return set(self.store.keys(KEYS.objects))
