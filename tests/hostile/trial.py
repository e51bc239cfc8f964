"""A trial: a real Syncthing sends a folder to a gateway, in peace or beside hostile devices and an unreliable store."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.hostile.store import hostile_store
from tests.interop.key_holder import key_holder
from tests.interop.sharing import s3_client, share_folder
from tests.peers.fault_proxy import FaultProxy, no_fault
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.waiting import PATIENCE
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.identity.files import load_or_create
from untrusted_s3.index.local_files import PENDING_FILE
from untrusted_s3.settings import Settings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys, peer_key
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.units import MIB

FOLDER = "honest"
BUFFER_MEMORY = 64 * MIB
# The quota for what devices announce, and what SQLite keeps of each folder beside it.
PENDING_DISK = 128 * MIB
KEPT_OF_FOLDER = 2 * MIB
_TRUSTED, _EQUALS = 3, 2
_LAG = "untrusted_s3_loop_lag_seconds_bucket"
_SAMPLE_INTERVAL = 0.25
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a trial is made of.

    Attributes:
        files: How many files the honest device has.
        peers: Whether there are hostile devices.
        store_faults: The share of requests to which the store answers wrongly.
        kills: How often the gateway is killed meanwhile.
        seed: Decides what all of them do.
        timeout: Seconds that the honest device may take.
    """

    files: int
    peers: bool = False
    store_faults: float = 0.0
    kills: int = 0
    seed: int = 1
    timeout: float = 3 * PATIENCE


@dataclass
class Outcome:
    """The figures of a trial.

    Attributes:
        seconds: From sharing the folder until the honest device saw the gateway at 100 %.
        memory_before: The gateway's resident bytes at its start.
        memory_peak: The most resident bytes that it had.
        budgets: The sum of its memory budgets.
        lag_p99: An upper bound of the loop's lag, in seconds, that 99 % of the time were below. None without figures.
        state_bytes: The most bytes of its local state.
        pending_bytes: The most bytes there of what devices have announced.
        pending_quota: The most that these may be.
        load: The machine's load average when the trial ended.
        attacks: What the hostile devices did.
        faults: How many requests the store answered wrongly.
        requests: How many requests there were.
        kills: How often the gateway was killed.
        errors: What is wrong at the end.
    """

    seconds: float = 0.0
    memory_before: int = 0
    memory_peak: int = 0
    budgets: int = 0
    lag_p99: float | None = None
    state_bytes: int = 0
    pending_bytes: int = 0
    pending_quota: int = 0
    load: float = 0.0
    attacks: Mapping[str, int] = field(default_factory=dict)
    faults: int = 0
    requests: int = 0
    kills: int = 0
    errors: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return asdict(self)


def make_files(folder: Path, count: int, seed: int) -> None:
    """Write files of up to 8 KiB into a tree, and some larger ones."""
    numbers = random.Random(seed)
    for number in range(count):
        path = folder / f"directory {number % 50}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 3 * MIB if number % 1000 == 999 else numbers.randrange(8192)
        path.write_bytes(numbers.randbytes(size))


def memory_budgets(settings: Settings) -> int:
    """Return the sum of the gateway's memory budgets, with one folder at work."""
    sync = settings.sync
    return BUFFER_MEMORY + settings.upkeep.message_memory + sync.parsed_file_infos + sync.file_infos_in_work


def run(store: EmbeddedStore, binary: Path, home: Path, files: Path, plan: Plan) -> Outcome:
    """Run one trial below `home`: an honest device gets copies of the files and sends them to a gateway."""
    outcome = Outcome(budgets=memory_budgets(Settings()))
    tree = home / "tree"
    tree.mkdir(parents=True)
    (tree / "first").write_bytes(b"first")
    shutil.copytree(files, home / "files")
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(store.endpoint_url))
        options = ["--endpoint-url", proxy.url, "--buffer-memory", str(BUFFER_MEMORY // MIB)]
        options += ["--pending-disk", str(PENDING_DISK // MIB)]
        gateway = Gateway(home / "gateway", store, home.name, options=options)
        stack.callback(gateway.kill)
        gateway.start()
        outcome.memory_before = gateway.peak_memory()
        device = stack.enter_context(Syncthing(binary, home / "device", "honest"))
        share_folder(device, gateway, FOLDER, tree)
        # After a kill the gateway dials at once; Syncthing would do so after a minute.
        gateway.add_peer(device.device_id, [device.listen_address])
        device.wait_completion(gateway.device_id, FOLDER)
        attack = stack.enter_context(hostile_devices(gateway, home, plan)) if plan.peers else None
        watch = stack.enter_context(Watch(gateway, outcome))
        if plan.store_faults:
            proxy.script = hostile_store(plan.seed, plan.store_faults)
        numbers = random.Random(plan.seed)
        try:
            (home / "files").rename(tree / "files")
            began = time.monotonic()
            device.scan(FOLDER)
            for _ in range(plan.kills):
                time.sleep(numbers.uniform(2, 8))
                watch.restart()
                outcome.kills += 1
            device.wait_completion(gateway.device_id, FOLDER, plan.timeout)
            outcome.seconds = round(time.monotonic() - began, 2)
        except Exception as error:
            outcome.errors.append(f"the honest device: {str(error)[:1500]}")
        outcome.load = round(os.getloadavg()[0], 1)
        watch.look()
        if attack is not None:
            outcome.attacks = attack.end()
        proxy.script = no_fault
        outcome.faults, outcome.requests = proxy.faults.total(), proxy.counts.total()
        _check(gateway, device, plan, outcome)
        device.stop()
        if gateway.stop() != 0:
            outcome.errors.append("the gateway did not stop well")
    return outcome


def _check(gateway: Gateway, device: Syncthing, plan: Plan, outcome: Outcome) -> None:
    """Check that the folder is complete and right, and that the gateway had no internal error."""
    try:
        device.wait_completion(gateway.device_id, FOLDER)
        with key_holder(gateway, FOLDER) as key:
            key.run("verify")
    except Exception as error:
        outcome.errors.append(f"the folder: {str(error)[:1500]}")
    found = gateway.folder(FOLDER)
    if found.get("files") != plan.files + 1:
        outcome.errors.append(f"{found.get('files')} files of {plan.files + 1}: {found}")
    try:
        gateway.assert_no_internal_errors()
    except AssertionError as error:
        outcome.errors.append(f"the log: {str(error)[:3000]}")


class Watch:
    """Looks at the gateway's memory, disk and loop, in a thread; a context manager."""

    def __init__(self, gateway: Gateway, outcome: Outcome) -> None:
        self._gateway = gateway
        self._outcome = outcome
        self._ended = threading.Event()
        self._lag: dict[float, float] = {}
        self._before: dict[float, float] = self._buckets()
        self._thread = threading.Thread(target=self._run)
        self._lock = threading.Lock()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def restart(self) -> None:
        """Kill the gateway and start it again."""
        with self._lock:
            self.look()
            self._gateway.kill()
            for tries in range(20):
                try:
                    self._gateway.start()
                    return
                except Exception:
                    if tries == 19:
                        raise

    def look(self) -> None:
        """Take the loop's figures of the process that runs now, since the watch began or the process started."""
        for bound, count in self._buckets().items():
            self._lag[bound] = self._lag.get(bound, 0.0) + count - self._before.get(bound, 0.0)
        self._before = {}
        total = self._lag.get(float("inf"), 0.0)
        if total:
            self._outcome.lag_p99 = min(bound for bound, count in self._lag.items() if count >= 0.99 * total)

    def _buckets(self) -> dict[float, float]:
        """Return how many observations of the loop's lag were at most so many seconds."""
        with contextlib.suppress(OSError, http.client.HTTPException, GatewayUnreachable):
            found = {name: value for name, value in self._gateway.metrics().items() if name.startswith(_LAG)}
            return {float(name.partition('"')[2].rstrip('"}').replace("+Inf", "inf")): found[name] for name in found}
        return {}

    def _run(self) -> None:
        while not self._ended.wait(_SAMPLE_INTERVAL):
            with contextlib.suppress(OSError, AssertionError, ValueError), self._lock:
                self._outcome.memory_peak = max(self._outcome.memory_peak, self._gateway.peak_memory())
                sizes = {path: path.stat().st_size for path in self._gateway.state.rglob("*") if path.is_file()}
                pending = {path: size for path, size in sizes.items() if path.name.startswith(PENDING_FILE)}
                folders = len({path.parent for path in pending})
                outcome = self._outcome
                outcome.state_bytes = max(outcome.state_bytes, sum(sizes.values()))
                outcome.pending_bytes = max(outcome.pending_bytes, sum(pending.values()))
                outcome.pending_quota = max(outcome.pending_quota, PENDING_DISK + folders * KEPT_OF_FOLDER)


class Attack:
    """The process with the hostile devices."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._ended = False

    def end(self) -> dict[str, int]:
        """End the attack. Return what was done."""
        if self._ended:
            return {}
        self._ended = True
        try:
            output, _ = self._process.communicate("", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return {}
        return dict(json.loads(output.splitlines()[-1])) if output.strip() else {}


@contextlib.contextmanager
def hostile_devices(gateway: Gateway, home: Path, plan: Plan) -> Iterator[Attack]:
    """Run hostile devices that the operator has accepted, some of which share the honest device's folder as equals."""
    command = [sys.executable, "-m", "tests.hostile.devices", gateway.listen_address, gateway.device_id, FOLDER]
    for number in range(_TRUSTED + _EQUALS):
        folder = home / f"hostile {number}"
        _accept(gateway, PeerRecord(load_or_create(folder).device_id, f"hostile {number}"))
        command += ["--identity" if number < _TRUSTED else "--equal", str(folder)]
    command += ["--token", folder_token(gateway).hex(), "--seed", str(plan.seed)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY
    ) as process:
        attack = Attack(process)
        try:
            _wait_for_rolls(gateway, [str(load_or_create(home / f"hostile {n}").device_id) for n in range(_TRUSTED)])
            yield attack
        finally:
            attack.end()


def _accept(gateway: Gateway, record: PeerRecord) -> None:
    """Accept a device without the command line, which takes a second."""
    assert gateway.store is not None
    key = gateway.prefix + peer_key(record.device_id)
    s3_client(gateway).put_object(Bucket=gateway.store.bucket, Key=key, Body=json.dumps(record.to_json()).encode())


def _wait_for_rolls(gateway: Gateway, device_ids: Sequence[str]) -> None:
    """Wait until the devices were heard of: some are cut off at once."""

    def heard() -> bool:
        peers = [gateway.peer(device_id) for device_id in device_ids]
        return all(peer and (peer["connected"] or peer["error"]) for peer in peers)

    gateway.wait_for("the hostile devices", heard)


def folder_token(gateway: Gateway) -> bytes:
    """Wait until the gateway has the honest device's folder, and return its password token."""
    gateway.wait_for("the folder", lambda: gateway.folder(FOLDER))
    assert gateway.store is not None
    key = gateway.prefix + FolderKeys.of(FOLDER).record
    record = json.loads(s3_client(gateway).get_object(Bucket=gateway.store.bucket, Key=key)["Body"].read())
    return base64.b64decode(record["password_token"])
