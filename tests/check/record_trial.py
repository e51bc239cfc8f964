"""A record of a store is damaged: what becomes of it with no, one or two gateways, which are whole ones."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from tests.file_infos import device
from tests.gateway.idle import Idle, idle_gateways
from tests.simulated import SimulatedBucket, SimulatedStore, inline_threads
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.check.scrub_record import ScrubRecord
from untrusted_s3.check.share import ALL
from untrusted_s3.check.store import StoreCheck
from untrusted_s3.identity.certificate import generate
from untrusted_s3.identity.sealed import SealedIdentity
from untrusted_s3.index.present_objects import write_present_objects
from untrusted_s3.problem import Finding
from untrusted_s3.repair.action import Remedy
from untrusted_s3.repair.folder import RepairOptions
from untrusted_s3.repair.store import StoreRepair, gateway_runs
from untrusted_s3.settings import IdentitySettings, Settings
from untrusted_s3.store import layout
from untrusted_s3.store.garbage import Candidate, GarbageRecord, Sweep, write_garbage, write_swept
from untrusted_s3.store.garbage_look import Look, write_look
from untrusted_s3.store.history import write_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossRecord, LostSegments
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import StoreRecord, write_record
from untrusted_s3.store.retention import KeepRules, write_rules
from untrusted_s3.store.usage import UsageRecord
from untrusted_s3.units import DAY

FIRST, SECOND = FolderKeys.of("f0"), FolderKeys.of("f1")
THINGS = (
    "the store's record",
    "record of a folder",
    "record of a device",
    "record of a gateway",
    "quotas",
    "rules of `keep`",
    "rules of `keep` of a folder",
    "record of a scrub",
    "record of a loss",
    "sealed identity",
    "requests of a gateway",
    "length of the history",
    "length of the history of a folder",
    "kept state",
    "record of garbage",
    "mark of deleted garbage",
    "last look for garbage",
    "list of present objects",
    "what was moved aside",
    "trial of the store",
)
# What there is for each place of the layout, here or in `trial`.
PLACES = {
    layout.STORE: ("the store's record",),
    layout.IDENTITIES: ("sealed identity",),
    layout.PEERS: ("record of a device",),
    layout.QUOTAS: ("quotas",),
    layout.RETENTION: ("rules of `keep`",),
    layout.HISTORY: ("length of the history",),
    layout.FOLDERS: (),
    layout.NODES: ("record of a gateway",),
    layout.USAGE: ("requests of a gateway",),
    layout.PROBES: ("trial of the store",),
    FIRST.record: ("record of a folder",),
    FIRST.objects: ("object",),
    FIRST.checkpoints: ("checkpoint",),
    FIRST.segments: ("segment that a checkpoint covers", "segment that none covers", "last segment"),
    FIRST.kept: ("kept state",),
    FIRST.retention: ("rules of `keep` of a folder",),
    FIRST.history: ("length of the history of a folder",),
    FIRST.losses: ("record of a loss",),
    FIRST.present_objects: ("list of present objects",),
    FIRST.damaged_segments: ("what was moved aside",),
    FIRST.garbage: ("record of garbage", "mark of deleted garbage", "last look for garbage"),
    FIRST.scrub: ("record of a scrub",),
}
# Nobody reads what it says.
NEVER_READ = ("mark of deleted garbage", "what was moved aside", "trial of the store")
DAMAGES = ("a bit", "cut", "deleted", "exchanged", "an older one")
NAMES = ("cloud", "other")
STORE_ID = "a" * 32
IDENTITY = generate()
HEADS = ("one gateway", "two gateways", "no gateway")
_GATEWAYS = (1, 2, 0)
_HOUR = 3600.0
# After so long, no deletion is under way any more.
_DAYS = 5


class RecordTrial:
    """A store with some of each record, and gateways that run on it."""

    def __init__(self, idle: Idle) -> None:
        self.idle = idle
        self.store = idle.store
        self._before: dict[str, bytes] = {}
        self._kept: list[str] = []
        self._garbage: list[str] = []

    async def fill(self) -> None:
        """Write the records that gateways alone do not make. Keep an earlier version of each."""
        bucket = SimulatedBucket(self.store)
        now = int(bucket.now())
        writer = self.idle.gateways[0].device_id if self.idle.gateways else device(1)
        for time in (now - 10, now):
            await write_quotas(bucket, Quotas({"f0": time}))
            await write_rules(bucket, None, KeepRules(daily=1 + now - time))
            await write_history(bucket, None, 20 + now - time)
            for number in (3, 4):
                usage = UsageRecord(device(number), time, time, "0" * 32)
                await write_record(bucket, layout.usage_key(usage.device_id), usage.to_json())
            for number, keys in enumerate((FIRST, SECOND), 1):
                await write_rules(bucket, keys, KeepRules(daily=number + now - time))
                await write_history(bucket, keys, 10 + number + now - time)
                await write_record(bucket, keys.scrub, ScrubRecord(writer, time, time).to_json())
                segments = (LostSegments(number, number, number, 1),)
                lost = LossRecord(number, device(1), time, segments=segments, loss_id="0" * 32)
                await write_record(bucket, keys.loss(number, "0" * 32), lost.to_json())
            for name in NAMES:
                sealed = SealedIdentity.seal(IDENTITY, STORE_ID, name, "passphrase", IdentitySettings(scrypt_n=2))
                await write_record(bucket, layout.identity_key(name), sealed.to_json())
            if time < now:
                self._before = {key: self.store.body(key) for key in self.store.keys("")}
        for key in (layout.peer_key(device(100)), FIRST.record):
            before = json.loads(self.store.body(key))
            before["name" if "name" in before else "label"] = "earlier"
            await write_record(bucket, key, before)
            self._before[key] = self.store.body(key)
            await write_record(bucket, key, {**before, "name": "", "label": ""})
        await self._fill_folder()
        await write_record(bucket, layout.STORE, StoreRecord(STORE_ID, 1).to_json())
        self._before[layout.STORE] = self.store.body(layout.STORE)
        await write_record(bucket, layout.STORE, StoreRecord(STORE_ID).to_json())

    async def _fill_folder(self) -> None:
        """Write what gateways write after hours or days."""
        bucket, store, log = SimulatedBucket(self.store), self.store, self.idle.others["f0"]
        for number in range(2):
            await log.append(10 + number)
            await log.log.checkpoint()
            position = log.state.position
            self._kept.insert(0, FIRST.kept_checkpoint(position, 1_600_000_000 + number))
            store.put(self._kept[0], store.body(FIRST.checkpoint(position)))
            await write_present_objects(bucket, FIRST, log.state)
            self._before.setdefault(FIRST.present_objects, store.body(FIRST.present_objects))
            for keys in (FIRST, SECOND):
                await write_look(bucket, keys, Look(int(bucket.now()) - 10 + number, ""))
        self._before[self._kept[0]] = store.body(self._kept[1])
        for number in range(2):
            record = GarbageRecord.new(bucket.now(), [Candidate(bytes(16), f"{number:032d}", 7)])
            await write_garbage(bucket, FIRST, record)
            await write_swept(bucket, FIRST, record.record_id, Sweep(int(bucket.now()), number, 0, 0))
            self._garbage.append(record.record_id)
            store.put(FIRST.damaged(1 + number, "c" * 32), b"damaged %d" % number)
            store.put(f"{layout.PROBES}{number}", b"probe %d" % number)

    def older(self, key: str) -> bytes:
        """Return an earlier version of a record."""
        return self._before.get(key, self.store.body(key))

    def keys(self, what: str) -> list[str]:
        """Return the key of something, that of another one like it, and that of an older one."""
        nodes = self.store.keys(layout.NODES)
        peers = [layout.peer_key(device(100 + number)) for number in range(2)]
        pairs = {
            "the store's record": (layout.STORE, layout.QUOTAS),
            "record of a folder": (FIRST.record, SECOND.record),
            "record of a device": (peers[0], peers[1]),
            "record of a gateway": (nodes[0], nodes[-1] if len(nodes) > 1 else peers[0]) if nodes else ("", ""),
            "quotas": (layout.QUOTAS, layout.RETENTION),
            "rules of `keep`": (layout.RETENTION, layout.QUOTAS),
            "rules of `keep` of a folder": (FIRST.retention, SECOND.retention),
            "record of a scrub": (FIRST.scrub, SECOND.scrub),
            "record of a loss": (FIRST.loss(1, "0" * 32), SECOND.loss(2, "0" * 32)),
            "requests of a gateway": (layout.usage_key(device(3)), layout.usage_key(device(4))),
            "length of the history": (layout.HISTORY, layout.RETENTION),
            "length of the history of a folder": (FIRST.history, SECOND.history),
            "kept state": (self._kept[0], self._kept[1]),
            "record of garbage": (FIRST.garbage_record(self._garbage[0]), FIRST.garbage_record(self._garbage[1])),
            "mark of deleted garbage": (
                FIRST.garbage_swept(self._garbage[0]),
                FIRST.garbage_swept(self._garbage[1]),
            ),
            "last look for garbage": (FIRST.garbage_look, SECOND.garbage_look),
            "list of present objects": (FIRST.present_objects, FIRST.scrub),
            "what was moved aside": (FIRST.damaged(1, "c" * 32), FIRST.damaged(2, "c" * 32)),
            "trial of the store": (f"{layout.PROBES}0", f"{layout.PROBES}1"),
            "sealed identity": (layout.identity_key(NAMES[0]), layout.identity_key(NAMES[1])),
        }
        return list(pairs[what])

    async def findings(self) -> list[Finding]:
        """Check everything."""
        check = StoreCheck(SimulatedBucket(self.store), ALL)
        return [finding async for finding in check.run() if finding.kind.is_damage]

    async def repair(self, other: SimulatedStore | None) -> bool:
        """Repair everything. Return whether something has to wait."""
        bucket = SimulatedBucket(self.store)
        second = SimulatedBucket(other) if other is not None else None
        options = RepairOptions(True, ALL, await gateway_runs(bucket), Settings())
        return Remedy.LATER in [action.remedy async for action in StoreRepair(bucket, second, options).run()]

    def damage(self, keys: list[str], damage: str) -> None:
        """Damage the first of the keys. A bit is of the first byte: what is said elsewhere has no checksum."""
        store, key = self.store, keys[0]
        body = store.body(key)
        match damage:
            case "a bit":
                store.put(key, bytes([body[0] ^ 1]) + body[1:])
            case "cut":
                store.put(key, body[:-7])
            case "deleted":
                del store.objects[key]
            case "exchanged":
                store.put(key, store.body(keys[1]))
                store.put(keys[1], body)
            case "an older one":
                store.put(key, self.older(key))


async def _play(home: Path, what: str, damage: str, gateways: int) -> str:
    async with idle_gateways(home, gateways=gateways) as idle:
        trial = RecordTrial(idle)
        await trial.fill()
        await asyncio.sleep(300)
        assert await trial.findings() == []
        keys = trial.keys(what)
        if not keys[0]:
            return "no such thing"
        second = SimulatedStore(trial.store.clock)
        second.objects = dict(trial.store.objects)
        trial.damage(keys, damage)
        was_seen = bool(await trial.findings())
        await asyncio.sleep(_HOUR)
        unseen = "no harm" if what in NEVER_READ else "cannot be seen"
        ends = [("by itself" if was_seen else unseen, None), ("repair", None), ("repair --from", second)]
        for number, (end, other) in enumerate(ends):
            if number:
                if await trial.repair(other):
                    await asyncio.sleep(_DAYS * DAY)
                    await trial.repair(other)
                    end += f", {_DAYS} days later"
                await asyncio.sleep(_HOUR)
            if not await trial.findings():
                return end
        return "named"


def play(what: str, damage: str, column: int) -> str:
    """Return how a record that is damaged ends, in one of the columns: the least that makes a check clean."""
    gateways = _GATEWAYS[column]
    with tempfile.TemporaryDirectory() as home, inline_threads():
        return run_in_virtual_time(_play(Path(home), what, damage, gateways))
