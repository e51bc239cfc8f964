"""A soak test.

Two trusted devices that know only the gateway change a folder at random. The store is unreliable, and the gateway is
killed or stopped now and then, sometimes with its state lost. At the end all must be equal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import operator
import os
import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.interop.sharing import PASSWORD
from tests.interop.stored_log import check_log
from tests.peers.fault_proxy import FaultProxy, no_fault, random_faults
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing, SyncthingFailed
from tests.peers.trees import assert_same_tree, count_files, manifest
from tests.soak.changes import RandomChanges
from tests.waiting import PATIENCE
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.settings import ClaimSettings, LogSettings, Settings, StoreSettings, SyncSettings, UpkeepSettings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.units import MIB

FOLDER = "soak"
# Checkpoints and recoveries come often, and devices are soon taken to stay with their versions.
SETTINGS = Settings(
    store=StoreSettings(timeout=10.0),
    log=LogSettings(
        checkpoint_cost=10 * LogSettings().segment_cost,
        poll_interval=2.0,
        idle_poll_interval=2.0,
        cursor_interval=5.0,
        max_append_delay=2.0,
    ),
    sync=SyncSettings(pull_retry_interval=1.0, max_pull_retry_interval=5.0),
    upkeep=UpkeepSettings(heartbeat_interval=5.0, peers_interval=5.0),
    claims=ClaimSettings(chance=3.0, interval=1.0, first_pause=20.0),
)
_START_TRIES = 20
_YOUNG = 15.0  # seconds that a gateway's memory may still grow


@dataclass
class Outcome:
    """The events of a soak.

    `memory` holds pairs of seconds since the beginning and the resident bytes of a gateway that has run for a while.
    """

    changes: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    requests: int = 0
    restarts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)
    files: int = 0
    conflicts: int = 0
    settled_after: float = 0.0

    def memory_of_thirds(self) -> list[float]:
        """Return the median of each third of the run."""
        third = max(len(self.memory) // 3, 1)
        parts = [self.memory[:third], self.memory[third : 2 * third], self.memory[2 * third :]]
        return [statistics.median(size for _, size in part) for part in parts if part]


@dataclass(frozen=True)
class Least:
    """How many changes, ends of the gateway and faults of the store a soak has at least."""

    changes: int = 0
    restarts: int = 0
    faults: int = 0


class Soak:
    """One soak below `home`, with a gateway on the prefix of the store."""

    def __init__(self, store: EmbeddedStore, prefix: str, home: Path, binaries: tuple[Path, Path], seed: int) -> None:
        self.outcome = Outcome()
        self._random = random.Random(seed)
        self._proxy = FaultProxy(store.endpoint_url)
        options = ["--endpoint-url", self._proxy.url]
        self._gateway = Gateway(home / "gateway", store, prefix, options=options, settings=SETTINGS)
        self._devices = [Syncthing(binary, home / name, name) for binary, name in zip(binaries, "AB", strict=True)]
        self._trees = [home / "tree A", home / "tree B"]
        # Each device makes all kinds of changes in a folder of its own, and both change the files of another one, often
        # before one has seen the other's change. A directory in conflict may stop Syncthing itself.
        self._changes = [
            (
                RandomChanges(tree / name, seed + number),
                RandomChanges(tree / "shared", -seed - number, files_only=True),
            )
            for number, (tree, name) in enumerate(zip(self._trees, "AB", strict=True))
        ]
        self._began = self._started = time.monotonic()

    def run(
        self, seconds: float, restart_interval: float, say: Callable[[str], None] = print, *, least: Least = Least()
    ) -> Outcome:
        """Run the test. `restart_interval` is the mean time between two ends of the gateway, in seconds.

        It goes on after `seconds` until there was `least` of everything, which takes long on a busy machine.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._proxy)
            for device in self._devices:
                stack.enter_context(device)
            stack.enter_context(self._gateway)
            self._share()
            self._began = time.monotonic()
            weather_until = restart_at = 0.0
            told_at = 60.0
            while (now := time.monotonic() - self._began) < seconds or not self._has_had(least):
                assert now < seconds + PATIENCE, f"not even {least}"
                if now > weather_until:
                    weather_until = now + self._random.uniform(3, 12)
                    self._change_weather()
                if restart_at == 0.0:
                    restart_at = now + self._random.uniform(0.3, 1.7) * restart_interval
                if now > restart_at:
                    restart_at = 0.0
                    self._restart()
                if now > told_at:
                    told_at += 60
                    say(self._line())
                self._step()
            self._settle()
            say(self._line())
        return self.outcome

    def _share(self) -> None:
        for device, tree in zip(self._devices, self._trees, strict=True):
            self._gateway.add_peer(device.device_id, [device.listen_address])
            device.add_device(self._gateway.device_id, "gateway", untrusted=True)
            device.add_folder(FOLDER, tree, {self._gateway.device_id: PASSWORD}, pullerPauseS=1, maxConflicts=-1)
        for device in self._devices:
            self._gateway.wait_connected(device.device_id)

    def _step(self) -> None:
        number = self._random.randrange(2)
        own, shared = self._changes[number]
        own.make(self._random.randrange(1, 12))
        if self._random.random() < 0.2:
            shared.make(1)
        self._scan(number)
        self._note_memory()
        time.sleep(self._random.uniform(0, 1))

    def _scan(self, number: int) -> None:
        # Files may change or vanish while they are scanned, and pulls may have failed. Both are expected.
        with contextlib.suppress(SyncthingFailed):
            self._devices[number].rest("POST", "db/scan", folder=FOLDER)

    def _has_had(self, least: Least) -> bool:
        had = self._changes_made().total(), self.outcome.restarts.total(), self._proxy.faults.total()
        return all(map(operator.ge, had, dataclasses.astuple(least)))

    # The weather

    def _change_weather(self) -> None:
        numbers = self._random
        self._proxy.come_back()
        self._proxy.bandwidth = None
        self._proxy.script = no_fault
        match numbers.choices(["calm", "faults", "slow", "away"], [2, 6, 1, 1])[0]:
            case "faults":
                self._proxy.script = random_faults(numbers.randrange(1 << 30), numbers.choice([0.02, 0.1, 0.3]))
            case "slow":
                self._proxy.bandwidth = 2.0 * MIB
            case "away":
                self._proxy.go_away()

    # The gateway's ends

    def _restart(self) -> None:
        gateway, numbers = self._gateway, self._random
        way = numbers.choice(["killed", "stopped"])
        if way == "killed":
            gateway.kill()
        else:
            assert gateway.stop() == 0, gateway.log_tail()
        if numbers.random() < 0.4:
            way += ", state lost"
            shutil.rmtree(gateway.state, ignore_errors=True)
        self.outcome.restarts[way] += 1
        self._start()

    def _start(self) -> None:
        """Start the gateway, repeatedly if the store prevents it, as a service manager would."""
        for number in itertools.count():
            try:
                self._gateway.start()
                break
            except GatewayUnreachable:
                if number == _START_TRIES:
                    raise
                self.outcome.restarts["failed to start"] += 1
                self._change_weather()
        self._started = time.monotonic()

    def _note_memory(self) -> None:
        process = self._gateway.process
        now = time.monotonic()
        if process is None or now - self._started < _YOUNG:
            return
        resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        self.outcome.memory.append((now - self._began, resident))

    # The end

    def _settle(self) -> None:
        """Inject no more faults, wait until all is equal, and check everything."""
        self._proxy.come_back()
        self._proxy.bandwidth = None
        self._proxy.script = no_fault
        began = time.monotonic()
        for number in range(2):
            self._scan(number)
        deadline = time.monotonic() + PATIENCE
        while not self._is_settled() and time.monotonic() < deadline:
            time.sleep(0.5)
        for device in self._devices:
            device.wait_in_sync(FOLDER)
            device.wait_completion(self._gateway.device_id, FOLDER)
        assert_same_tree(*self._trees)
        outcome = self.outcome
        outcome.settled_after = time.monotonic() - began
        outcome.files = count_files(self._trees[0])
        outcome.conflicts = sum("sync-conflict" in name for name in manifest(self._trees[0], contents=False))
        outcome.faults = self._proxy.faults.total()
        outcome.requests = self._proxy.counts.total()
        outcome.changes = self._changes_made()
        self._gateway.wait_folder(FOLDER, files=outcome.files, error=None)
        check_log(self._gateway, FOLDER, contents=True)

    def _is_settled(self) -> bool:
        """Return whether both devices have the same and show the gateway as complete."""
        shown = [device.completion(self._gateway.device_id, FOLDER)["completion"] for device in self._devices]
        return self._is_idle() and shown == [100, 100] and self._is_equal()

    def _is_idle(self) -> bool:
        """Return whether nothing is under way."""
        status = [device.folder_status(FOLDER) for device in self._devices]
        busy = any(one["state"] != "idle" or one["needTotalItems"] for one in status)
        return not busy and self._gateway.folder(FOLDER).get("pending_files") == 0

    def _is_equal(self) -> bool:
        try:
            left, right = (manifest(tree, contents=False) for tree in self._trees)
        except OSError:  # it changed meanwhile
            return False
        return left == right

    def _changes_made(self) -> Counter[str]:
        return sum((one.made for both in self._changes for one in both), Counter[str]())

    def _line(self) -> str:
        changes = self._changes_made().total()
        memory = self.outcome.memory[-1][1] if self.outcome.memory else 0
        restarts = ", ".join(f"{count} {way}" for way, count in self.outcome.restarts.items())
        return (
            f"{time.monotonic() - self._began:6.0f} s: {changes} changes, {self._proxy.counts.total()} requests to the"
            f" store, {self._proxy.faults.total()} faults, {memory / MIB:.0f} MiB resident; {restarts or 'no restarts'}"
        )
