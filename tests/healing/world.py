"""One or two gateways, one or two trusted devices, and a store that loses things.

A schedule is a seed. Devices change files, connect and go; gateways crash between any two calls to the store, with
their local state or without; the store loses segments, checkpoints, objects and records. In the end everything that a
device has is stored, all gateways agree, and whatever else was stored at any time is there or named as lost. All
gateways still say then what any of them has said is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from tests.file_infos import deleted, device, directory, encrypted_name, file
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.sync.fakes import new_folder
from tests.sync.scripted_device import Device, data_of
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState, index_start
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.counters import Counters
from untrusted_s3.errors import FolderRefused, LogWentBack, SegmentDamaged, SegmentsMissing, StoreError
from untrusted_s3.gateway.folders import Folders
from untrusted_s3.gateway.losses import Losses
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings, Settings, SyncSettings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.supervisor import Supervisor
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.session import Session

RECORD = FolderRecord("folder", "", b"token", index_id=98)
KEYS = FolderKeys.of("folder")
OFFER = FolderOffer("folder", "", RECORD.token, paused=False, peer=IndexState(), known=IndexState())
NAMES = 6
START = 1_700_000_000.0
SETTINGS = Settings(
    log=LogSettings(
        segment_entries=2, segment_burst=1000, checkpoint_share=0.0, cursor_interval=20.0, whole_check_interval=200.0
    ),
    sync=SyncSettings(pull_retry_interval=5.0, max_failure_interval=60.0),
)


class Clock:
    """The store's clock, which follows the loop's."""

    def __call__(self) -> float:
        return START + asyncio.get_running_loop().time()


# What many schedules parse and make again and again.
parsed = functools.lru_cache(5000)(parse_file_info)
COUNTERS = Counters()


@functools.lru_cache(1000)
def body_of(raw: bytes) -> bytes:
    """Return the data of a file."""
    return b"".join(map(data_of, parsed(raw).message.blocks))


def counter_of(info: FileInfo) -> int:
    """Return which version of a file it is."""
    return info.message.version.counters[0].value


class Peer(Device):
    """A trusted device that also takes what the folder gives it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.known = IndexState()
        self.gateway: Gateway | None = None
        self.folder: Folder | None = None
        self.session: Connection | None = None
        self.task: asyncio.Task[None] | None = None

    def connect(self, gateway: Gateway) -> bool:
        """Connect to a gateway. Return whether the folder is shared now."""
        folder = gateway.folders.get("folder")
        if self.folder is not None or folder is None:
            return False
        self.gateway, self.folder = gateway, folder
        folder.start_index(self.device_id, IndexState(self.index_id, self.sequence))
        folder.note_known(self.known)
        start = index_start(self.known, folder.own_index)
        folder.add_source(self.device_id, self)
        self.session = Connection(self)
        gateway.sessions.add(cast(Session, self.session))
        self.task = asyncio.create_task(self._converse(folder, gateway, start))
        return True

    def disconnect(self) -> None:
        if self.folder is None or self.gateway is None or self.session is None or self.task is None:
            return
        self.folder.remove_source(self.device_id, self)
        self.gateway.sessions.remove(cast(Session, self.session))
        self.task.cancel()
        self.folder = self.gateway = self.session = self.task = None

    def reset(self) -> None:
        """Lose everything, the database too."""
        self.disconnect()
        self.files.clear()
        self.index_id += 100
        self.sequence, self.known = 0, IndexState()

    async def _converse(self, folder: Folder, gateway: Gateway, sent: int) -> None:
        announced, looked = -1, IndexState()
        while True:
            if announced != self.sequence:
                announced = self.sequence
                await self.announce(folder, 1000)
            if looked != folder.own_index:
                looked = folder.own_index
                shown = list(folder.file_infos_after(sent, 1000, self.device_id))
                for sequence, raw in shown:
                    sent = sequence
                    await self._receive(parsed(raw), folder, gateway)
                if shown:
                    folder.index_sent(self.device_id, sent)
                self.known = IndexState(looked.index_id, sent)
            await asyncio.sleep(3)

    async def _receive(self, info: FileInfo, folder: Folder, gateway: Gateway) -> None:
        mine = self.files.get(info.name)
        if mine is not None and counter_of(mine) >= counter_of(info):
            return
        if not info.has_data or await self.can_read(info, folder, gateway):
            self.take(info)

    async def can_read(self, info: FileInfo, folder: Folder, gateway: Gateway) -> bool:
        """Read a file's blocks as a device does. Return whether they are there."""
        block = info.message.blocks[0]
        request = RequestReceived(0, "folder", info.name, block.offset, block.size, block.hash, False)
        found = await folder.requested_block(request, self.device_id)
        if found is None:
            return False
        key = found.key
        size = info.message.size
        stored = gateway.bucket.store.objects.get(key)
        if stored is None or len(stored.body) < size:
            gateway.folders.read_failed(key, 0, size)
            return False
        return stored.body[:size] == body_of(info.raw)


class Connection:
    """A session, as far as the gateway ends it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.shared_folders = ["folder"]
        self.transport = SimpleNamespace(abort=lambda: None)

    def end(self, reason: str) -> None:
        self.shared_folders = []
        if self._peer.session is self:
            self._peer.disconnect()

    def folder_opened(self) -> None:
        pass


class Gateway:
    """The process of a gateway. It may die at a call to the store."""

    def __init__(self, world: World, number: int, dies_in: int | None) -> None:
        self.number = number
        self.dead = False
        self.dies_in = dies_in
        self.bucket = SimulatedBucket(world.store, gate=self._gate)
        self.sessions = Sessions()
        self.supervisor = Supervisor(1.0, 10.0)
        self.folders = Folders(
            self.bucket,
            lambda record: new_folder(
                record,
                self.bucket,
                world.home(number),
                own_id=device(90 + number),
                counters=COUNTERS,
                settings=SETTINGS,
            ),
            self.supervisor,
            self.sessions,
            retry_delay=1.0,
            max_retry_delay=20.0,
            close_timeout=0.5,
            heal_pauses=Pauses(30.0, 300.0),
            claim_pauses=world.claims,
            losses=Losses(self.bucket, 30.0, 30.0),
        )
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.folders.open_all()
                break
            except StoreError:
                await asyncio.sleep(1)
        await asyncio.gather(self.folders.watch(15.0), self.folders.watch_losses(15.0))

    async def _gate(self, call: Call, phase: Phase) -> None:
        if self.dies_in is not None and phase is Phase.REQUEST:
            self.dies_in -= 1
            self.dead = self.dead or self.dies_in < 0
        if self.dead:
            await asyncio.Event().wait()

    async def crash(self) -> None:
        """End the process. What is on its disk stays."""
        self.dead = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.supervisor.stop()
        self.folders.close()

    @property
    def folder(self) -> Folder | None:
        return self.folders.get("folder")


class World:
    """All of it. `log` tells what happened."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.log: list[str] = []
        self.directory = directory
        self.store = SimulatedStore(Clock())
        self.claims = Pauses(60.0, 600.0)
        self.peers = [Peer(1), Peer(2)][: self.random.randint(1, 2)]
        self.everybody = self.peers
        self.numbers = [1, 2][: self.random.randint(1, 2)]
        self.gateways: dict[int, Gateway] = {}
        self.version = 0
        # By name, the newest version that a log has had.
        self.stored: dict[str, int] = {}
        self.said: set[str] = set()  # what any gateway has said is lost
        self.said_removed = False
        self.states_lost = False
        self.looked_removed = False
        self.found_damage = False
        # Some stores lose objects only: then the log says all, whatever becomes of local states.
        self.loses_log = self.random.random() < 0.8
        self.log_lost = False
        self.forgotten: dict[str, int] = {}  # what nobody may know any more, as `stored`
        self.read_fresh: tuple[int, int, list[bytes]] | None = None  # what somebody without a state has read

    def home(self, number: int) -> Path:
        return self.directory / str(number)

    # What happens

    async def play(self) -> None:
        self._put_record()
        for number in self.numbers:
            self._start(number)
        await self._pass(2)
        for _ in range(self.random.randint(3, 10)):
            self._change()
        self._connect()
        await self._pass(5)
        for _ in range(self.random.randint(3, 14)):
            await self._something()
            self._note_stored()
        await self._end()

    async def _something(self) -> None:
        dice = self.random.random()
        if dice < 0.2:
            for _ in range(self.random.randint(1, 3)):
                self._change()
        elif dice < 0.35:
            self._connect()
        elif dice < 0.45:
            self.random.choice(self.peers).disconnect()
        elif dice < 0.6:
            await self._crash_or_start(self.random.choice(self.numbers))
        elif dice < 0.63:
            self._say("a device loses all it has")
            self.random.choice(self.peers).reset()
        elif dice < 0.85:
            self._note_stored()
            self._lose()
        await self._pass(self.random.choice([0.1, 1, 5, 20, 70]))

    def _say(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():.1f} {text}")

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for number, gateway in list(self.gateways.items()):
            # A folder without record and log, or nearly so, counts as removed, and the status says that.
            self.said_removed |= any(not closed.damaged for closed in gateway.folders.closed)
            self.said.update(gateway.folders.lost("folder"))
            if gateway.dead:
                await self._crash(number)

    def _put_record(self) -> None:
        self.store.put(KEYS.record, json.dumps(RECORD.to_json()).encode())

    def _start(self, number: int) -> None:
        dies_in = self.random.randrange(60) if self.random.random() < 0.3 else None
        self._say(f"gateway {number} starts, dies in {dies_in}")
        self.gateways[number] = Gateway(self, number, dies_in)

    async def _crash(self, number: int) -> None:
        gateway = self.gateways.pop(number)
        for peer in self.everybody:
            if peer.gateway is gateway:
                peer.disconnect()
        await gateway.crash()
        keeps = self.random.random() < 0.6
        self._say(f"gateway {number} crashed, state {'kept' if keeps else 'lost'}")
        if not keeps:
            self._lose_state(number)

    def _lose_state(self, number: int) -> None:
        shutil.rmtree(self.home(number), ignore_errors=True)
        self.states_lost = True
        if self.log_lost:
            self.forgotten |= self.stored

    def _note_log_lost(self) -> None:
        """Note that the log is not whole any more. What only a state tells now is forgotten where there is no state."""
        self.log_lost = True
        for number in self.numbers:
            gateway = self.gateways.get(number)
            if not self.home(number).exists() or (gateway is not None and gateway.folder is None):
                self.forgotten |= self.stored

    async def _crash_or_start(self, number: int) -> None:
        if number in self.gateways:
            await self._crash(number)
        else:
            self._start(number)

    def _connect(self) -> None:
        peer = self.random.choice(self.peers)
        if self.gateways:
            gateway = self.random.choice(list(self.gateways.values()))
            if peer.connect(gateway):
                self._say(f"device connects to {gateway.number}")

    def _change(self) -> None:
        peer = self.random.choice(self.peers)
        name = encrypted_name(self.random.randrange(NAMES))
        number = next(n for n in range(NAMES) if encrypted_name(n) == name)
        for other in self.peers:  # concurrent changes are another matter
            info = other.files.get(name)
            if info is not None:
                mine = peer.files.get(name)
                if mine is None or counter_of(mine) < counter_of(info):
                    peer.take(info)
        self.version += 1
        makers: Sequence[Callable[..., FileInfo]] = (file, file, file, directory, deleted)
        make = self.random.choice(makers)
        peer.take(make(number, self.version, content=self.version) if make is file else make(number, self.version))

    def _note_stored(self) -> None:
        """Note what the log has now. Only what some gateway has in its state counts."""
        for gateway in self.gateways.values():
            folder = gateway.folder
            if folder is None:
                continue
            for _, raw in list(folder.file_infos_after(0, 1000)):
                info = parsed(raw)
                version = counter_of(info)
                self.stored[info.name] = max(self.stored.get(info.name, 0), version)

    # Losses

    def _lose(self) -> None:
        segments, checkpoints = self.store.keys(KEYS.segments), self.store.keys(KEYS.checkpoints)
        objects = self.store.keys(KEYS.objects)
        what: list[str] = []
        if not self.loses_log:
            self._take_away(self.random.sample(objects, self.random.randint(0, len(objects))))
            return
        if self.random.random() < 0.7 and segments:
            what += segments[-self.random.randint(1, min(len(segments), 8)) :]
        if self.random.random() < 0.15 and segments:
            what += self.random.sample(segments, self.random.randint(1, len(segments)))
        if self.random.random() < 0.2:
            what += self.random.sample(checkpoints, self.random.randint(0, len(checkpoints)))
        if self.random.random() < 0.4:
            what += self.random.sample(objects, self.random.randint(0, len(objects)))
        if self.random.random() < 0.05:
            what.append(KEYS.record)
        if self.random.random() < 0.15 and segments:
            self._garble(self.random.choice(segments))
        self._note_log_lost()
        self._take_away(what)
        # What is left is what is left of a folder that was removed: then local states are deleted.
        log = [*self.store.keys(KEYS.segments), *self.store.keys(KEYS.checkpoints)]
        self.looked_removed = self.looked_removed or (KEYS.record not in self.store.objects and not log)

    def _take_away(self, keys: Sequence[str]) -> None:
        for key in dict.fromkeys(keys):
            if key in self.store.objects:
                if key.startswith(KEYS.objects) and self.random.random() < 0.2:
                    self.store.put(key, self.store.body(key)[: self.random.randrange(900)])
                    self._say(f"cut short: {key}")
                    continue
                del self.store.objects[key]
                self._say(f"lost: {key}")

    def _garble(self, key: str) -> None:
        body = self.store.body(key)
        place = self.random.randrange(len(body)) if body else 0
        damaged = [body[:place], body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]] if body else []
        others = [self.store.body(other) for other in self.store.keys(KEYS.segments)]
        self.store.put(key, self.random.choice([*damaged, b"something else", self.random.choice(others)]))
        self._say(f"damaged: {key}")

    # The end

    async def _end(self) -> None:
        self._say("the end")
        fresh = Peer(3)
        self.everybody = [*self.peers, fresh]
        for gateway in self.gateways.values():
            gateway.dies_in = None
        await self._pass(0)
        for _ in range(40):
            for number in self.numbers:
                if number not in self.gateways:
                    self.gateways[number] = Gateway(self, number, None)
            await self._pass(20)
            for gateway in self.gateways.values():
                if gateway.folder is None:
                    with contextlib.suppress(FolderRefused):
                        await gateway.folders.for_offer(OFFER, device(1))
            if KEYS.record not in self.store.objects and self._is_record_missed():
                self._say("the operator puts the record back from a copy, as the status says")
                self._put_record()
            for peer in self.everybody:
                if peer.folder is None and self.gateways:
                    peer.connect(self.random.choice(list(self.gateways.values())))
            await self._pass(60)
            for gateway in self.gateways.values():
                await self._read_all(gateway)
            if self._is_settled() and not self._read_anything_wrong() and await self._is_readable():
                break
            if self.found_damage:
                await self._lose_a_state()
        else:
            await self._is_readable()
        self._check()

    async def _lose_a_state(self) -> None:
        """Gateways do not read again what they have applied. One without a state does, and heals what is damaged."""
        number = self.random.choice(list(self.gateways))
        await self._crash(number)
        self._lose_state(number)
        self.found_damage = False

    def _is_record_missed(self) -> bool:
        problems = [problem for gateway in self.gateways.values() for problem in gateway.folders.problems().values()]
        return any("put the record back" in problem for problem in problems)

    async def _read_all(self, gateway: Gateway) -> None:
        folder = gateway.folder
        for _, raw in list(folder.file_infos_after(0, 1000)) if folder is not None else ():
            info = parsed(raw)
            if info.has_data and folder is not None:
                await self.peers[0].can_read(info, folder, gateway)

    async def _is_readable(self) -> bool:
        self.read_fresh = None
        try:
            self.read_fresh = await read_fresh(self)
        except SegmentsMissing:
            return False
        except (LogWentBack, SegmentDamaged):
            self.found_damage = True
            return False
        return True

    def _read_anything_wrong(self) -> bool:
        return any(self._wrong_objects(gateway) for gateway in self.gateways.values())

    def _is_settled(self) -> bool:
        folders = [gateway.folder for gateway in self.gateways.values()]
        indexes = [folder.own_index for folder in folders if folder is not None]
        if any(index != indexes[0] for index in indexes):
            return False
        # A gateway hears from time to time what another one has found lost.
        said = all(self.said <= set(gateway.folders.lost("folder")) for gateway in self.gateways.values())
        return (
            said
            and len(folders) == len(self.numbers)
            and all(
                folder is not None and folder.error is None and not folder.syncing and self._has_all(folder)
                for folder in folders
            )
        )

    def _has_all(self, folder: Folder) -> bool:
        return all(self._has(folder, name, version) for name, version in self._newest().items())

    @staticmethod
    def _has(folder: Folder, name: str, version: int) -> bool:
        entry = folder.entry(name)
        return entry is not None and counter_of(entry.file_info) >= version

    def _newest(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for peer in self.peers:
            for name, info in peer.files.items():
                newest[name] = max(newest.get(name, 0), counter_of(info))
        return newest

    def _wrong_objects(self, gateway: Gateway) -> list[str]:
        """Return the keys of objects that the folder's entries name and that do not hold their content."""
        folder = gateway.folder
        wrong = []
        for _, raw in list(folder.file_infos_after(0, 1000)) if folder is not None else ():
            entry = folder.entry(parsed(raw).name) if folder is not None else None
            if entry is None or entry.stored is None:
                continue
            key = KEYS.object(entry.file_info.name, entry.stored.object_name)
            found = self.store.objects.get(key)
            if (
                found is None
                or len(found.body) != entry.stored.size
                or found.body[: entry.file_info.message.size] != body_of(entry.file_info.raw)
            ):
                wrong.append(key)
        return wrong

    def _check(self) -> None:
        states = []
        for gateway in self.gateways.values():
            folder = gateway.folder
            closed = [one.error for one in gateway.folders.closed]
            assert folder is not None, f"gateway {gateway.number} has closed the folder: {closed}"
            assert folder.error is None, folder.error
            assert self._wrong_objects(gateway) == [], "shown and not there"
            for name, version in self._newest().items():
                assert self._has(folder, name, version), f"{name} {version} of a device is not stored"
            states.append((folder.own_index, [parsed(raw).raw for _, raw in folder.file_infos_after(0, 1000)]))
        assert all(state == states[0] for state in states), "gateways disagree"
        index, infos = states[0]
        record_index_id = next(iter(self.gateways.values())).folder.record.index_id  # type: ignore[union-attr]
        assert self.read_fresh is not None, "the log cannot be read"
        index_id, *read = self.read_fresh
        assert (index_id or record_index_id, *read) == (index.index_id, index.max_sequence, infos), "the log differs"
        self._check_lost()

    def _check_lost(self) -> None:
        """What was stored at any time and is not now must be named, and what was said to be lost stays said."""
        for gateway in self.gateways.values():
            assert self.said <= set(gateway.folders.lost("folder")), (
                f"gateway {gateway.number} does not say it any more"
            )
            assert not gateway.folders.problems().keys() & {"folder folder: losses not readable"}
        folder = next(iter(self.gateways.values())).folder
        assert folder is not None
        named = {name for name, _ in folder.missing_examples(1000)}
        for name, version in self.stored.items():
            if not self._has(folder, name, version) and name not in named:
                assert self._may_be_unknown(name, version), f"{name} {version} is lost and not named"

    def _may_be_unknown(self, name: str, version: int) -> bool:
        if self.looked_removed or self.forgotten.get(name, 0) >= version:
            return True
        # What a gateway alone knows is said to be lost, but not named, where the other one has healed the log.
        return self.log_lost and len(self.numbers) > 1 and (bool(self.said) or self.said_removed or self.states_lost)


async def read_fresh(world: World) -> tuple[int, int, list[bytes]]:
    """Load the log as a newcomer: index id, sequence number and file infos. Raises DataError."""
    read = FolderState(world.directory / "reader.sqlite")
    try:
        await load_newest(SimulatedBucket(world.store), KEYS, read)
        infos = [bytes(raw) for _, raw in read.file_infos_after(0, 1000)]
        return read.index_id, read.sequence, infos
    finally:
        read.close()
        remove_database(read.path)


async def _play(world: World) -> None:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context)))
    try:
        await world.play()
    finally:
        for gateway in world.gateways.values():
            await gateway.crash()
    await asyncio.sleep(0)
    assert errors == [], "something failed where nobody waits for it"


def play(seed: int) -> Counter[str]:
    """Play one schedule, and return how many keys were lost, damaged or cut short.

    Raises AssertionError, with what happened, where anything is wrong in the end.
    """
    with fast_directory() as home, inline_threads():
        world = World(seed, home)
        try:
            run_in_virtual_time(asyncio.wait_for(_play(world), 100_000))
        except BaseException as error:
            error.add_note(f"seed {seed}:\n" + "\n".join(world.log))
            raise
        happened = (line.split(" ", 1)[1].partition(": ") for line in world.log)
        return Counter(what for what, colon, _ in happened if colon)
