"""One thing of a store is damaged: what becomes of it with no, one or two gateways, and with or without the device.

`python -m tests.check` prints the table of docs/keeping-a-store-healthy.md.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.file_infos import deleted, device, file
from tests.healing.world import KEYS, RECORD, Clock, Gateway, Peer, World, body_of
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.check.share import ALL
from untrusted_s3.check.store import StoreCheck
from untrusted_s3.counters import Counters
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.gateway.scrub import Scrub
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import trim
from untrusted_s3.problem import Finding
from untrusted_s3.repair.action import Remedy
from untrusted_s3.repair.folder import RepairOptions
from untrusted_s3.repair.store import StoreRepair
from untrusted_s3.settings import ScrubSettings, Settings
from untrusted_s3.store.layout import STORE
from untrusted_s3.store.records import StoreRecord
from untrusted_s3.units import DAY

PERIOD = 600.0
SETTINGS = ScrubSettings(interval=60.0, names_at_once=2)


class Trial:
    """A store with a folder, gateways that scrub, and a device that has all files or is gone."""

    def __init__(self, directory: Path, gateways: int, *, device_stays: bool) -> None:
        self.directory = directory
        self.store = SimulatedStore(Clock())
        self.claims = Pauses(60.0, 600.0)
        self.peer = Peer(1)
        self.gateways: list[Gateway] = []
        self.scrubs: list[asyncio.Task[None]] = []
        self._count = gateways
        self._stays = device_stays

    def home(self, number: int) -> Path:
        return self.directory / str(number)

    async def fill(self) -> None:
        """Have some files stored, some of them in two versions, before and after a checkpoint."""
        self.store.put(KEYS.record, json.dumps(RECORD.to_json()).encode())
        self.store.put(STORE, json.dumps(StoreRecord("0" * 32).to_json()).encode())
        for number in range(1, max(self._count, 1) + 1):
            gateway = Gateway(cast(World, self), number, None)
            self.gateways.append(gateway)
            scrub = Scrub(
                gateway.bucket,
                gateway.folders,
                device(90 + number),
                PERIOD,
                Counters(),
                ScrubSettings(interval=60.0, names_at_once=2),
            )
            self.scrubs.append(asyncio.create_task(scrub.run()))
        await asyncio.sleep(2)
        self.peer.connect(self.gateways[0])
        for version in (1, 2):
            for number in range(4):
                self.peer.take(file(number, version, content=version))
                await asyncio.sleep(8)
            await self._checkpoint()
        for number, make in ((0, file), (4, file), (5, file), (1, deleted)):
            self.peer.take(make(number, 3, content=3) if make is file else make(number, 3))
            await asyncio.sleep(8)
        if not self._stays:
            self.peer.disconnect()
        if not self._count:
            for gateway in self.gateways:
                await self._stop(gateway)

    async def _checkpoint(self) -> None:
        state = FolderState(self.directory / "checkpoint.sqlite")
        try:
            log = FolderLog(SimulatedBucket(self.store), KEYS, state, device(50))
            await log.load()
            await log.checkpoint()
        finally:
            state.close()

    async def _stop(self, gateway: Gateway) -> None:
        for scrub in self.scrubs:
            scrub.cancel()
        if self.peer.gateway is gateway:
            self.peer.disconnect()
        await gateway.crash()

    async def stop(self) -> None:
        """End everything."""
        for gateway in self.gateways if self._count else []:
            await self._stop(gateway)

    async def go_on(self, seconds: float) -> None:
        """Let time pass. The device connects again whenever its connection ended."""
        for _ in range(int(seconds / 20)):
            await asyncio.sleep(20)
            if self._stays and self._count:
                self.peer.connect(self.gateways[0])

    async def upkeep(self) -> None:
        """Let the hours pass until gateways trim their logs, which also deletes what is moved aside."""
        if self._count:
            await self.go_on(3600)
            await trim(SimulatedBucket(self.store), KEYS, 30 * DAY)

    async def findings(self) -> list[Finding]:
        """Check everything."""
        check = StoreCheck(SimulatedBucket(self.store), ALL)
        return [finding async for finding in check.run() if finding.kind.is_damage]

    async def repair(self, other: SimulatedStore | None) -> bool:
        """Repair everything, again after an hour if something has to wait. Return whether it still has to wait then."""
        waits = False
        for pause in (0.0, 3600.0):
            await self.go_on(pause)
            waits = await self._repair(other)
            if not waits:
                break
        return waits

    async def _repair(self, other: SimulatedStore | None) -> bool:
        options = RepairOptions(True, ALL, bool(self._count), Settings())
        second = SimulatedBucket(other) if other is not None else None
        repair = StoreRepair(SimulatedBucket(self.store), second, options)
        return Remedy.LATER in [action.remedy async for action in repair.run()]

    def check_end(self) -> None:
        """Check that all gateways go on, and that what the device has is stored."""
        for gateway in self.gateways if self._count else []:
            assert gateway.folder is not None
            assert gateway.folder.error is None
            for info in self.peer.files.values() if self._stays else ():
                entry = gateway.folder.entry(info.name)
                assert entry is not None
                assert entry.file_info.message.version == info.message.version
                if entry.stored is not None:
                    body = self.store.body(KEYS.object(info.name, entry.stored.object_name))
                    assert body[: info.message.size] == body_of(info.raw)

    # What can be damaged

    def object_keys(self) -> list[str]:
        """Return the keys of two current objects, and that of an earlier version of the first one."""
        first, second = file(2, 2, content=2), file(3, 2, content=2)
        keys = []
        for info in (first, second, file(2, 1, content=1)):
            (key,) = [key for key in self.store.keys(KEYS.objects_of(info.name)) if _holds(self.store, key, info.raw)]
            keys.append(key)
        return keys

    def segments(self) -> list[int]:
        """Return the positions of the log's segments."""
        return [position for key in self.store.keys(KEYS.segments) if (position := KEYS.segment_position(key))]

    def covered(self) -> int:
        """Return the position of the newest checkpoint."""
        return max(position for key in self.store.keys(KEYS.checkpoints) if (position := KEYS.checkpoint_position(key)))

    def keys(self, what: str) -> list[str]:
        """Return the key of something, that of another one of its kind, and that of an older one."""
        covered, segments = self.covered(), self.segments()
        match what:
            case "object":
                return self.object_keys()
            case "checkpoint":
                older, newest = self.store.keys(KEYS.checkpoints)[-2:]
                return [newest, older, older]
            case "segment that a checkpoint covers":
                return [KEYS.segment(covered - 2), KEYS.segment(covered - 1), KEYS.segment(covered - 3)]
            case "segment that none covers":
                middle = [position for position in segments if position > covered][1]
                return [KEYS.segment(middle), KEYS.segment(middle + 1), KEYS.segment(middle - 1)]
            case "last segment":
                return [KEYS.segment(segments[-1]), KEYS.segment(segments[-2]), KEYS.segment(segments[-3])]
        raise ValueError(what)


def _holds(store: SimulatedStore, key: str, raw: bytes) -> bool:
    return store.body(key).startswith(body_of(raw))


def flip(store: SimulatedStore, keys: list[str]) -> None:
    """Change a bit."""
    body = bytearray(store.body(keys[0]))
    body[len(body) // 2] ^= 1
    store.put(keys[0], bytes(body))


def truncate(store: SimulatedStore, keys: list[str]) -> None:
    """Take the end away."""
    store.put(keys[0], store.body(keys[0])[:-7])


def delete(store: SimulatedStore, keys: list[str]) -> None:
    """Delete it."""
    del store.objects[keys[0]]


def swap(store: SimulatedStore, keys: list[str]) -> None:
    """Exchange it with another one."""
    bodies = store.body(keys[0]), store.body(keys[1])
    store.put(keys[0], bodies[1])
    store.put(keys[1], bodies[0])


def older(store: SimulatedStore, keys: list[str]) -> None:
    """Put an older one in its place."""
    store.put(keys[0], store.body(keys[2]))


THINGS = ("object", "checkpoint", "segment that a checkpoint covers", "segment that none covers", "last segment")
DAMAGES: dict[str, Callable[[SimulatedStore, list[str]], None]] = {
    "a bit": flip,
    "cut": truncate,
    "deleted": delete,
    "exchanged": swap,
    "an older one": older,
}


@dataclass(frozen=True)
class Case:
    """Attributes: how many gateways run, and whether a device with all files stays connected."""

    gateways: int
    device_stays: bool

    @property
    def text(self) -> str:
        return f"{('no gateway', 'one gateway', 'two gateways')[self.gateways]}, " + (
            "a device has all" if self.device_stays else "no device"
        )


CASES = (Case(1, True), Case(2, True), Case(1, False), Case(2, False), Case(0, False))


async def _play(directory: Path, what: str, damage: str, case: Case) -> str:
    trial = Trial(directory, case.gateways, device_stays=case.device_stays)
    await trial.fill()
    assert await trial.findings() == []
    second = SimulatedStore(trial.store.clock)
    second.objects = dict(trial.store.objects)
    DAMAGES[damage](trial.store, trial.keys(what))
    try:
        was_seen = bool(await trial.findings())
        await trial.go_on(2 * PERIOD)
        await trial.upkeep()
        first = "by itself" if was_seen else "no harm"
        if what == "last segment" and not was_seen:
            # A check cannot know that there was one. A gateway that has applied it does.
            first = "by itself" if case.gateways else "cannot be seen"
        ends: list[tuple[str, SimulatedStore | None, bool]] = [(first, None, False)]
        ends += [("repair", None, True), ("repair, twice", None, True), ("repair --from", second, True)]
        for end, other, repairs in ends:
            if repairs:
                if await trial.repair(other):
                    await trial.go_on(DAY)
                    await trial.repair(other)
                    end += ", again a day later"
                await trial.go_on(300)
            left = await trial.findings()
            if not left:
                trial.check_end()
                return end
        return "named: " + ", ".join(sorted({finding.kind for finding in left}))
    finally:
        await trial.stop()


def play(what: str, damage: str, case: Case) -> str:
    """Return how something that is damaged ends: the least that makes a check clean."""
    with fast_directory() as directory, inline_threads():
        return run_in_virtual_time(_play(directory, what, damage, case))
