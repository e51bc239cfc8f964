"""A process that writes to the log: files of few contents, so that old ones come again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tests.file_infos import deleted, device, encrypted_name, file
from tests.garbage.checked_store import KEYS
from tests.garbage.plots import CONTENTS, NAMES
from tests.simulated import Call, Phase, SimulatedBucket
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.entry import NAMED_ONLY, Dissent, Entry, EntryClaims, Removal, StoredObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import LogSettings, ObjectSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.layout import name_key

if TYPE_CHECKING:
    from tests.garbage.world import World

HOUR = 3600.0
GRID = PartGrid(single_put_size=1500, min_part_size=1064)
LOG_SETTINGS = LogSettings(read_ahead=2)
COUNTERS = Counters()
# In hours, before a change.
PASSES = (0.2, 1, 3, 7, 13, 25, 25, 50)
LONG_PASSES = (80, 130, 150)


@functools.lru_cache(10_000)
def _file(name: int, version: int, content: int) -> FileInfo:
    # The first content is one PUT, the other ones are uploaded in parts.
    sizes = (1064,) if content == 0 else (1064, 1064, 1064)
    return file(name, version, sizes=sizes, content=content)


class Gateway:
    """A process that writes."""

    def __init__(self, world: World, number: int) -> None:
        self.open(world, number, *world.bucket(number))

    def open(
        self, world: World, number: int, bucket: SimulatedBucket, clock: Callable[[], float], *, waits: bool = True
    ) -> None:
        """Begin the process. It `waits` for others now and then."""
        self._world = world
        self._waits = waits
        self._number = number
        self._random = world.random
        path = world.directory / f"{number}.sqlite"
        self.state = FolderState(path)
        self.log = FolderLog(bucket, KEYS, self.state, device(number), LOG_SETTINGS, clock, garbage_rules=world.rules)
        self._writer = ObjectWriter(
            bucket,
            KEYS,
            Account(1 << 20),
            UploadLimits.of(ObjectSettings()),
            COUNTERS,
            ObjectSettings(),
            GRID,
            is_candidate=self.log.garbage.candidates.has,
            clock=clock,
        )
        self._is_slow = False

    @classmethod
    @contextlib.contextmanager
    def on(cls, world: World, number: int, bucket: SimulatedBucket, clock: Callable[[], float]) -> Iterator[Gateway]:
        """Open one that nothing disturbs."""
        gateway = cls.__new__(cls)
        gateway.open(world, number, bucket, clock, waits=False)
        try:
            yield gateway
        finally:
            gateway.close(keep=True)

    def close(self, *, keep: bool) -> None:
        """End the process."""
        self.state.close()
        if not keep:
            remove_database(self.state.path)

    async def do_something(self) -> None:
        """Change something, or write a checkpoint."""
        if self._random.random() < 0.3:
            passes = LONG_PASSES if self._random.random() < 0.05 else PASSES
            self._world.pass_some(passes)
        dice = self._random.random()
        try:
            if self._random.random() < self._world.plot.goes_back:
                await self._go_back()
            elif dice < 0.15 or self._random.random() < self._world.plot.checkpoints:
                await self._checkpoint()
            elif dice < 0.25:
                await self.delete(self._name())
            elif dice < 0.4:
                await self._touch()
            elif dice < 0.5:
                await self._go_back()
            elif dice < 0.6:
                await self._disagree()
            else:
                await self.write(self._name(), self._random.randrange(self._world.plot.contents))
        except (StoreError, DataError) as error:
            self._world.store.happened[f"failed: {type(error).__name__}"] += 1

    def _next(self) -> int:
        self._world.version += 1
        return self._world.version

    async def _checkpoint(self) -> None:
        await self.log.refresh()
        if self.state.position:
            await self.log.checkpoint()

    def _name(self) -> int:
        return self._random.randrange(self._world.plot.names)

    async def delete(self, name: int) -> None:
        """Delete a file."""
        await self._append(Entry(deleted(name, self._next()), None, claims=EntryClaims()))

    async def write(self, name: int, content: int) -> None:
        """Write a file. There are few contents, so that old ones come again."""
        info = _file(name, self._next(), content)
        for _ in range(3):
            if await self._append(Entry(info, await self._store(info), claims=EntryClaims())):
                return

    async def _disagree(self) -> None:
        """Write a file of which two devices have other contents."""
        name = self._name()
        infos = [_file(name, self._next(), content) for content in self._random.sample(range(CONTENTS), 2)]
        for _ in range(3):
            current, other = [Entry(info, await self._store(info)) for info in infos]
            claims = EntryClaims((device(1),), (Dissent(other, (device(2),)),))
            if await self._append(dataclasses.replace(current, claims=claims)):
                return

    async def _store(self, info: FileInfo) -> StoredObject:
        self._is_slow = self._random.random() < self._world.plot.slow_uploads
        may_be_stored = self._random.random() < 0.5
        return await self._writer.write(
            info, self._fetch, self.state.entry(info.name), owner=1, may_be_stored=may_be_stored
        )

    async def _fetch(self, number: int, block: pb.BlockInfo) -> memoryview:
        if self._is_slow:
            self._world.let_pass(self._random.choice([25, 80, 130]) * HOUR)
        return memoryview(hashlib.shake_128(block.hash).digest(block.size))

    async def _touch(self) -> None:
        """Change the times of a file, as far as this gateway knows it."""
        before = self.state.entry(encrypted_name(self._name()))
        if before is None or before.stored is None:
            return
        info = before.file_info
        name = next(number for number in range(NAMES) if encrypted_name(number) == info.name)
        content = next(one for one in range(CONTENTS) if _same_content(_file(name, 1, one), info))
        stored = _seen(before, NAMED_ONLY)
        assert stored.stored is not None
        if not await self._append(Entry(_file(name, self._next(), content), stored.stored, claims=EntryClaims())):
            self._world.store.happened["touched too late"] += 1

    async def _append(self, entry: Entry) -> bool:
        """Write an entry as LogWriter does. Return False if its object may be deleted."""
        await self._wait()
        if self._random.random() < 0.2:
            await self.log.refresh()
        await self.log.garbage.look([entry])
        if self.log.garbage.keeps_out(entry):
            self._world.store.happened["kept out"] += 1
            return False
        await self.log.append([entry])
        self._world.old.append(entry)
        return True

    async def _wait(self) -> None:
        """Let the others go on, perhaps as far as they do."""
        if not self._waits:
            return
        hold = self._world.scheduler.gate(self._number)
        times = self._random.choice([0, 0, 1, 5, 20])
        may_be_slow = self._world.may_be_slow(self._number)
        if may_be_slow and self._random.random() < self._world.plot.stall_before_entry:
            self._world.stand_still(self._number)
            times += 1
        for _ in range(times):
            await hold(Call("wait", ""), Phase.REQUEST)

    async def _go_back(self) -> None:
        """Bring an old version back by a renewal."""
        if not self._world.old:
            return
        old = _seen(self._random.choice(self._world.old), None)
        key = name_key(old.file_info.name)
        plan = functools.partial(self._plan, Removal(key), old)
        await self.log.renew(plan, check_objects=True)
        self._world.store.happened["gone back"] += 1

    @staticmethod
    def _plan(removal: Removal, entry: Entry, state: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
        return [removal], [entry]


def _same_content(one: FileInfo, other: FileInfo) -> bool:
    return [block.hash for block in one.message.blocks] == [block.hash for block in other.message.blocks]


def _seen(entry: Entry, seen: float | None) -> Entry:
    if entry.stored is None:
        return entry
    return dataclasses.replace(entry, stored=dataclasses.replace(entry.stored, seen=seen))
