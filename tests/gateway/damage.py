"""A gateway with a folder for each kind of damage to its keys or local files, and a sound one.

All folders begin as copies of the sound one, which has something under every kind of key. Then each gets its damage.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.file_infos import device, file
from tests.gateway.idle import Bucket
from tests.simulated import Fault, SimulatedBucket, SimulatedStore
from tests.sync.judging_device import virtual_store
from tests.sync.scripted_device import Device, data_of
from tests.waiting import until
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState
from untrusted_s3.bep.events import IndexReceived, RequestReceived
from untrusted_s3.errors import FolderUnavailable
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.http.metrics import GatewayCollector
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.identity.certificate import generate
from untrusted_s3.index.local_files import folder_directory, store_directory
from untrusted_s3.settings import LogSettings, ScrubSettings, Settings, UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.garbage import Candidate, GarbageRecord, Sweep, write_garbage, write_swept
from untrusted_s3.store.garbage_look import Look, write_look
from untrusted_s3.store.history import write_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossNotes, LostSegments
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import FolderRecord, NodeRecord, PeerRecord, StoreRecord, write_record
from untrusted_s3.store.retention import KeepRules, write_rules
from untrusted_s3.store.usage import UsageRecord

GARBAGE_ID = "0" * 32
STORE_ID, SOUND, TOKEN, INDEX_ID = "a" * 32, "sound", b"token", 2
PEER, OTHER = device(100), device(3)
OURS = generate()
# Upkeep, the scrub and lists come soon and often. The event loop is not measured: that takes turns of it.
SETTINGS = Settings(
    log=LogSettings(checkpoint_share=0.0, poll_interval=60.0, idle_poll_interval=60.0),
    upkeep=UpkeepSettings(
        first_delay=60.0,
        interval=100.0,
        first_list_delay=60.0,
        list_interval=100.0,
        usage_interval=100.0,
        removal_interval=100.0,
        idle_removal_interval=100.0,
        lag_interval=1e6,
        disk_interval=1e6,
    ),
    scrub=ScrubSettings(interval=20.0),
)
SCRUB_PERIOD = 100.0
# All that is noticed without a device is noticed by then.
NOTICED = 260.0


@dataclass
class Trial:
    """The store, and the gateway on it.

    Attributes:
        home: The gateway's local state.
        store: The store.
        faults: What happens to requests for keys, by key.
    """

    home: Path
    store: SimulatedStore = field(default_factory=virtual_store)
    faults: dict[str, Fault] = field(default_factory=dict)
    _gateway: Gateway | None = None
    _number: int = 0

    @property
    def gateway(self) -> Gateway:
        """The gateway that runs."""
        assert self._gateway is not None
        return self._gateway

    async def fill(self) -> None:
        """Write records, and let a gateway store files in the sound folder."""
        bucket, keys = SimulatedBucket(self.store), FolderKeys.of(SOUND)
        await write_record(bucket, layout.STORE, StoreRecord(STORE_ID).to_json())
        await write_record(bucket, layout.peer_key(PEER), PeerRecord(PEER, "device").to_json())
        await write_record(bucket, keys.record, FolderRecord(SOUND, "", TOKEN, INDEX_ID).to_json())
        async with self.running():
            await self.takes(SOUND)
            await self.takes(SOUND)
            folder = self.gateway.folders.get(SOUND)
            assert folder is not None
            folder.want_checkpoint(0.0)
            await until(lambda: self.store.keys(keys.checkpoints) == [keys.checkpoint(2)])
            await self.takes(SOUND)
            await asyncio.sleep(NOTICED)
        assert self.store.keys(keys.checkpoints) == [keys.checkpoint(2)], "the last segment is not covered"
        await write_quotas(bucket, Quotas({SOUND: 1 << 40}, {}))
        await write_rules(bucket, None, KeepRules(daily=7))
        await write_rules(bucket, keys, KeepRules(daily=7))
        await write_record(bucket, layout.node_key(OTHER), NodeRecord(OTHER, "other", 0, "b" * 32).to_json())
        await write_record(bucket, layout.usage_key(OTHER), UsageRecord(OTHER, 0).to_json())
        await write_record(bucket, layout.peer_key(device(101)), PeerRecord(device(101), "another").to_json())
        self.store.put(layout.identity_key("laptop"), b"{}")
        self.store.put(f"{layout.PROBES}probe", b"probe")
        self.store.put(keys.damaged(1, "c" * 32), b"damaged")
        await LossNotes(bucket, keys, OTHER).write(9, INDEX_ID, segments=[LostSegments(5, 5, 3, 1)])
        (checkpoint, *_) = self.store.keys(keys.checkpoints)
        self.store.put(keys.kept_checkpoint(2, 1_600_000_000), self.store.body(checkpoint))
        for key in self.store.keys(keys.garbage):
            await bucket.delete(key)
        garbage = GarbageRecord(GARBAGE_ID, int(bucket.now()), (Candidate(bytes(16), "d" * 32, 7),))
        await write_garbage(bucket, keys, garbage)
        await write_swept(bucket, keys, garbage.record_id, Sweep(int(bucket.now()), 0, 0, 0))
        await write_look(bucket, keys, Look(int(bucket.now()), ""))
        await write_history(bucket, None, 30)
        await write_history(bucket, keys, 30)

    async def copy_folder(self, folder_id: str) -> FolderKeys:
        """Add a copy of the sound folder."""
        keys, sound = FolderKeys.of(folder_id), FolderKeys.of(SOUND)
        for key in self.store.keys(sound.base):
            self.store.put(keys.base + sound.relative(key), self.store.body(key))
        record = FolderRecord(folder_id, "", TOKEN, INDEX_ID)
        await write_record(SimulatedBucket(self.store), keys.record, record.to_json())
        return keys

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Run the gateway."""
        bucket = Bucket(self.store, fault=lambda call: self.faults.get(call.key))
        settings = GatewaySettings(
            (), None, "gateway", self.home, tuning=SETTINGS, collects_garbage=True, scrub=SCRUB_PERIOD
        )
        self._gateway = Gateway(bucket, OURS, settings)
        try:
            await self._gateway.start()
            yield self._gateway
        finally:
            await self._gateway.stop()
            self._gateway = None

    async def takes(self, folder_id: str) -> None:
        """Have a folder take in a new file of a device, and serve it. Fails if it does not."""
        folder, peer = self.gateway.folders.get(folder_id), Device(100)
        assert folder is not None, f"{folder_id} is not open"
        self._number += 1
        peer.index_id += self._number
        info = file(self._number, content=self._number)
        peer.take(info)
        folder.start_index(peer.device_id, IndexState(peer.index_id, peer.sequence))
        folder.add_source(peer.device_id, peer)
        raw = tuple(one.raw for one in peer.after(0))
        await folder.take_index(peer.device_id, peer.index_id, IndexReceived(folder_id, raw, True, peer.sequence, 0))
        await asyncio.sleep(20.0)
        block = info.message.blocks[0]
        request = RequestReceived(0, folder_id, info.name, block.offset, block.size, block.hash, False)
        found = await folder.requested_block(request, PEER)
        folder.remove_source(peer.device_id, peer)
        assert found is not None, f"{folder_id}: the file was not stored"
        assert self.store.body(found.key)[: block.size] == data_of(block)

    async def is_refused(self, folder_id: str) -> bool:
        """Whether the gateway says that it cannot share the folder now when a device offers it."""
        offer = FolderOffer(folder_id, "", TOKEN, paused=False, peer=IndexState(), known=IndexState())
        try:
            await self.gateway.folders.for_offer(offer, PEER)
        except FolderUnavailable:
            return True
        return False

    def problems(self) -> dict[str, str]:
        """Return the problems of the status by their names, which are those of /readyz. Metrics count them."""
        status: dict[str, Any] = self.gateway.status()
        found = {one["name"]: one["error"] for one in status["problems"]}
        assert list(self.gateway.problems) == [*self.gateway.failing_tasks, *found]
        metrics = {metric.name: metric.samples for metric in GatewayCollector(self.gateway).collect()}
        assert metrics["untrusted_s3_problems"][0].value == len(self.gateway.problems)
        for folder in status["folders"]:
            error = [one.value for one in metrics["untrusted_s3_folder_error"] if one.labels["folder"] == folder["id"]]
            assert error == [folder["error"] is not None]
            if folder["error"] is not None:
                assert any(name.startswith(f"folder {folder['id']}: ") for name in found), folder
        return found

    def local_directory(self, folder_id: str) -> Path:
        """Return where the local files of a folder are."""
        return folder_directory(store_directory(self.home, STORE_ID), folder_id, INDEX_ID)


# By kind, what keys of a folder begin with; the last one is damaged.
FOLDER_KINDS: Mapping[str, Callable[[FolderKeys], str]] = {
    "record": lambda keys: keys.record,
    "object": lambda keys: keys.objects,
    "first segment": lambda keys: keys.segment(1),
    "last segment": lambda keys: keys.segments,
    "checkpoint": lambda keys: keys.checkpoints,
    "kept checkpoint": lambda keys: keys.kept,
    "damaged segment": lambda keys: keys.damaged_segments,
    "losses": lambda keys: keys.losses,
    "scrub": lambda keys: keys.scrub,
    "rules": lambda keys: keys.retention,
    "garbage": lambda keys: keys.garbage_record(GARBAGE_ID),
    "mark of garbage": lambda keys: keys.garbage_swept(GARBAGE_ID),
    "look for garbage": lambda keys: keys.garbage_look,
    "history": lambda keys: keys.history,
    "present objects": lambda keys: keys.present_objects,
}
STORE_KINDS: Mapping[str, str] = {
    "rules": layout.RETENTION,
    "history": layout.HISTORY,
    "quotas": layout.QUOTAS,
    "device": layout.peer_key(device(101)),
    "another gateway": layout.node_key(OTHER),
    "own requests": layout.usage_key(OURS.device_id),
    "requests of another gateway": layout.usage_key(OTHER),
    "identity": layout.IDENTITIES,
    "probe": layout.PROBES,
}


def _flip(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


BODIES: Mapping[str, Callable[[bytes], bytes]] = {
    "bit": _flip,
    "cut": lambda body: body[: len(body) * 2 // 3],
    "empty": lambda body: b"",
    "garbage": lambda body: random.Random(1).randbytes(len(body) + 100),
}
# The store answers 403, or 500 again and again.
FAULTS: Mapping[str, Fault] = {"refused": Fault.REFUSED, "failing": Fault.UNREACHABLE}
DAMAGES = (*BODIES, *FAULTS)


def damage(trial: Trial, key: str, how: str) -> None:
    """Damage an object of the store."""
    if how in FAULTS:
        trial.faults[key] = FAULTS[how]
    else:
        trial.store.put(key, BODIES[how](trial.store.body(key)))


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


LOCAL_DAMAGES: Mapping[str, Callable[[Path], object]] = {
    **{how: (lambda path, act=act: path.write_bytes(act(path.read_bytes()))) for how, act in BODIES.items()},  # type: ignore[misc]
    "no file": lambda path: _replace(path, os.mkdir),
    "link": lambda path: _replace(path, lambda path: path.symlink_to("/nonexistent/file")),
    "no log file": lambda path: _replace(path.with_name(f"{path.name}-wal"), os.mkdir),
    "another index": lambda path: _replace(path.with_name(f"{path.name}-shm"), os.mkdir),
}
