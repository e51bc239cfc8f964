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
from untrusted_s3.problem import Finding
from untrusted_s3.repair.folder import RepairOptions
from untrusted_s3.repair.store import StoreRepair, gateway_runs
from untrusted_s3.settings import IdentitySettings, Settings
from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossRecord, LostSegments
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import StoreRecord, write_record
from untrusted_s3.store.retention import KeepRules, write_rules

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
)
DAMAGES = ("a bit", "cut", "deleted", "exchanged", "an older one")
NAMES = ("cloud", "other")
STORE_ID = "a" * 32
IDENTITY = generate()
HEADS = ("one gateway", "two gateways", "no gateway")
_GATEWAYS = (1, 2, 0)
_HOUR = 3600.0


class RecordTrial:
    """A store with some of each record, and gateways that run on it."""

    def __init__(self, idle: Idle) -> None:
        self.idle = idle
        self.store = idle.store
        self._before: dict[str, bytes] = {}

    async def fill(self) -> None:
        """Write the records that gateways alone do not make. Keep an earlier version of each."""
        bucket = SimulatedBucket(self.store)
        now = int(bucket.now())
        writer = self.idle.gateways[0].device_id if self.idle.gateways else device(1)
        for time in (now - 10, now):
            await write_quotas(bucket, Quotas({"f0": time}))
            await write_rules(bucket, None, KeepRules(daily=1 + now - time))
            for number, keys in enumerate((FIRST, SECOND), 1):
                await write_rules(bucket, keys, KeepRules(daily=number + now - time))
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
        await write_record(bucket, layout.STORE, StoreRecord(STORE_ID, 1).to_json())
        self._before[layout.STORE] = self.store.body(layout.STORE)
        await write_record(bucket, layout.STORE, StoreRecord(STORE_ID).to_json())

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
            "sealed identity": (layout.identity_key(NAMES[0]), layout.identity_key(NAMES[1])),
        }
        return list(pairs[what])

    async def findings(self) -> list[Finding]:
        """Check everything."""
        check = StoreCheck(SimulatedBucket(self.store), ALL)
        return [finding async for finding in check.run() if finding.kind.is_damage]

    async def repair(self, other: SimulatedStore | None) -> None:
        """Repair everything."""
        bucket = SimulatedBucket(self.store)
        second = SimulatedBucket(other) if other is not None else None
        options = RepairOptions(True, ALL, await gateway_runs(bucket), Settings())
        async for _ in StoreRepair(bucket, second, options).run():
            pass

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
        ends = [("by itself" if was_seen else "cannot be seen", None), ("repair", None), ("repair --from", second)]
        for number, (end, other) in enumerate(ends):
            if number:
                await trial.repair(other)
                await asyncio.sleep(_HOUR)
            if not await trial.findings():
                return end
        return "named"


def play(what: str, damage: str, column: int) -> str:
    """Return how a record that is damaged ends, in one of the columns: the least that makes a check clean."""
    gateways = _GATEWAYS[column]
    with tempfile.TemporaryDirectory() as home, inline_threads():
        return run_in_virtual_time(_play(Path(home), what, damage, gateways))
