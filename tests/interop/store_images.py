"""Images of an embedded store's data folder, taken while a gateway runs on it, and put back later.

`python -m tests.interop.store_images --rounds 20 --seed 1` puts back one image after the other and tells of each. It
ends at the first one after which something is shown as stored that is not, or is lost and not named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.interop.key_holder import key_holder
from tests.interop.sharing import PASSWORD, share_folder
from tests.peers.debian import SYNCTHING_VERSIONS, syncthing_binary
from tests.peers.gateway import Gateway
from tests.peers.gateway_main import encode
from tests.peers.gateway_noting_fsync import synced_sizes
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, manifest
from tests.soak.changes import RandomChanges
from tests.store.embedded.power_cut import copy_paused, cut_to_synced
from tests.waiting import PATIENCE, wait_until
from untrusted_s3 import BlockReader, DamagedEntry, Kind, S3Bucket, S3Credentials, StoreLocation, open_folder
from untrusted_s3 import Entry as VaultEntry
from untrusted_s3.compat.trees import Entry as TreeEntry
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, UntrustedS3Error
from untrusted_s3.settings import EmbeddedSettings, LogSettings, Settings, SyncSettings, UpkeepSettings
from untrusted_s3.store.embedded.files import Credentials, Endpoint
from untrusted_s3.store.embedded.process import BUCKET

FOLDER = "images"
# A gateway that looks often, heals again at once, and writes checkpoints often.
QUICK = Settings(
    embedded=EmbeddedSettings(start_timeout=PATIENCE),
    upkeep=UpkeepSettings(
        heartbeat_interval=0.5, peers_interval=0.5, heal_pause=0.1, claim_pause=0.1, restart_delay=0.5
    ),
    log=LogSettings(
        poll_interval=0.3,
        idle_poll_interval=0.3,
        check_interval=0.5,
        idle_check_interval=0.5,
        cursor_interval=1.0,
        max_append_delay=1.0,
        checkpoint_cost=10 * LogSettings().segment_cost,
    ),
    sync=SyncSettings(
        missing_pause=0.5, object_list_interval=0.5, pull_retry_interval=0.5, max_pull_retry_interval=2.0
    ),
)

_LOOKS = 20
_TOLD = (
    "volume repaired",
    "objects without data removed",
    "log healed",
    "log segments lost",
    "object missing or damaged",
    "files taken back, for their objects are missing",
)

Manner = Literal["paused", "torn", "power cut"]
MANNERS: tuple[Manner, ...] = ("paused", "torn", "power cut")


@dataclass(frozen=True)
class Plan:
    """How an image is taken, and what happens when it is put back.

    Attributes:
        manner: At one moment; file by file while files change; or at one moment, without what was not synced.
        state_lost: Whether the first gateway loses its local state.
        alone: Whether the device connects only after the gateways were looked at without it.
        second: What the second gateway does meanwhile: it does not run, runs on, or is started again.
    """

    manner: Manner
    state_lost: bool
    alone: bool
    second: Literal["absent", "runs on", "starts again"]

    @classmethod
    def roll(cls, numbers: random.Random) -> Plan:
        """Return any plan."""
        return cls(
            numbers.choice(MANNERS),
            numbers.random() < 0.5,
            numbers.random() < 0.5,
            numbers.choice(["absent", "runs on", "starts again"]),
        )


@dataclass(frozen=True)
class EmbeddedS3:
    """The embedded store of a data folder, for other programs; a `ReachableStore`."""

    directory: Path

    @property
    def endpoint_url(self) -> str:
        return self.endpoint.endpoint_url

    @property
    def bucket(self) -> str:
        return BUCKET

    @property
    def access_key(self) -> str:
        return Credentials.load(self.directory).access_key

    @property
    def secret_key(self) -> str:
        return Credentials.load(self.directory).secret_key

    @property
    def endpoint(self) -> Endpoint:
        """Where the server listens, and its process."""
        endpoint = Endpoint.read(self.directory)
        assert endpoint is not None
        return endpoint


class Images:
    """A device that changes a folder, its gateway on an embedded store, and perhaps a second gateway on that store."""

    def __init__(self, home: Path, binary: Path, seed: int, *, large_share: float = 0.0) -> None:
        self.numbers = random.Random(seed)
        self.original = home / "original"
        self.original.mkdir(parents=True)
        self._home = home
        self._changes = RandomChanges(self.original / "tree", seed, large_share=large_share)
        self._key = FolderKey.derive(PASSWORD, FOLDER)
        self.gateway = Gateway(home / "gateway", None)
        self._synced = home / "synced"
        noting = [sys.executable, "-m", "tests.peers.gateway_noting_fsync", str(self._synced), encode(QUICK)]
        self.gateway.program = noting
        self.data = home / "gateway" / "data" / "seaweedfs"
        self.store = EmbeddedS3(self.data)
        self.second = Gateway(home / "second", self.store, settings=QUICK)
        self._second_url = ""
        self.device = Syncthing(binary, home / "device", "device")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self.device.start()
            self.gateway.start()
            self._changes.make(20)
            share_folder(self.device, self.gateway, FOLDER, self.original)
            self.device.add_device(self.second.device_id, "second", [self.second.listen_address], untrusted=True)
            both = {gateway.device_id: PASSWORD for gateway in (self.gateway, self.second)}
            devices = [{"deviceID": name, "encryptionPassword": password} for name, password in both.items()]
            self.device.set_folder(FOLDER, devices=devices)
            self._wait_whole()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if kind is None:
            self.gateway.assert_no_internal_errors()
            self.second.assert_no_internal_errors()

    def _end(self) -> None:
        self.device.kill()
        self.second.kill()
        self._kill_gateway()

    @property
    def _running(self) -> list[Gateway]:
        return [gateway for gateway in (self.gateway, self.second) if gateway.process is not None]

    def play(self, plan: Plan) -> str:
        """Take an image between changes, put it back after more changes, and check everything. Tell what happened."""
        if plan.second == "absent":
            self.second.kill()
        elif self.second.process is None:
            self._start_second()
        image = self._home / "image"
        before = self.numbers.randrange(3)
        for _ in range(before):
            self._change()
        self._take(plan.manner, image)
        for _ in range(self.numbers.randrange(4)):
            self._change()
        self._wait_whole()
        if plan.alone:
            for gateway in (self.gateway, self.second):
                self.device.pause_device(gateway.device_id)  # resumed, it dials at once
        self._kill_gateway()
        if plan.second == "starts again":
            self.second.kill()
        self._put_back(image)
        if plan.state_lost:
            shutil.rmtree(self.gateway.state)
        logged = len(self.gateway.log())
        self.gateway.start()
        if plan.second != "absent":
            self._start_second()
        if plan.alone:
            self._look_without_device(knows=not plan.state_lost or plan.second != "absent")
            for gateway in (self.gateway, self.second):
                self.device.resume_device(gateway.device_id)
        self._wait_whole()
        events = Counter(line["event"] for line in self.gateway.log()[logged:])
        return ", ".join(f"{event}: {events[event]}" for event in _TOLD if events[event])

    # Changes and images

    def _change(self) -> None:
        self._changes.make(self.numbers.randrange(1, 10))
        self.device.scan(FOLDER)
        if self.numbers.random() < 0.5:
            self.device.wait_completion(self.gateway.device_id, FOLDER)

    def _take(self, manner: Manner, image: Path) -> None:
        pid = self.store.endpoint.pid
        if manner == "torn":
            self._copy_torn(image)
        elif manner == "paused":
            copy_paused(pid, self.data, image)
        else:
            os.kill(self.gateway.pid, signal.SIGSTOP)
            try:
                copy_paused(pid, self.data, image)
                cut_to_synced(self.data, image, synced_sizes(self._synced))
            finally:
                os.kill(self.gateway.pid, signal.SIGCONT)

    def _copy_torn(self, image: Path) -> None:
        """Copy the files one by one in any order, and change the folder between."""
        files = sorted(path for path in self.data.rglob("*") if path.is_file())
        self.numbers.shuffle(files)
        moments = {self.numbers.randrange(len(files)) for _ in range(3)}
        for number, path in enumerate(files):
            if number in moments:
                self._change()
            target = image / path.relative_to(self.data)
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(path, target)

    def _kill_gateway(self) -> None:
        """Kill the gateway and its store, and wait until both have ended."""
        self.gateway.kill()
        endpoint = Endpoint.read(self.data)
        if endpoint is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(endpoint.pid, signal.SIGKILL)
        if (self.data / "lock").exists():
            wait_until(self._is_free)

    def _is_free(self) -> bool:
        with (self.data / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _put_back(self, image: Path) -> None:
        shutil.rmtree(self.data)
        image.rename(self.data)
        self._synced.write_text("")

    def _start_second(self) -> None:
        if self.second.process is not None and self._second_url == self.store.endpoint_url:
            return
        self.second.kill()
        self._second_url = self.store.endpoint_url
        self.second.start()

    # Checks

    def _wait_whole(self) -> None:
        """Wait until all is stored and the device says so. Fail if it goes on to say so and it is not true.

        A device that has just connected still shows what it knew before. So it is asked, and all is read, many times.
        """
        deadline = time.monotonic() + PATIENCE
        wrong = 0
        while time.monotonic() < deadline:
            shown = self._shown()
            if any(place is None for place in shown.values()):
                wrong = 0
                time.sleep(0.05)
                continue
            differing = self._differing()
            missing = {gateway.folder(FOLDER)["missing_files"] for gateway in self._running}
            if not differing and missing == {0}:
                return
            wrong = wrong + 1 if differing and self._shown() == shown else 0
            assert wrong < _LOOKS, f"shown as complete, and it is not: {differing}\n{self._tails()}"
        raise AssertionError(f"never complete: {self._shown()} {self._differing()}\n{self._tails()}")

    def _shown(self) -> dict[str, tuple[int, int] | None]:
        """Return, by gateway, which of its indexes the device knows, if it shows the gateway as complete by that."""
        return {gateway.home.name: self._shown_of(gateway) for gateway in self._running}

    def _shown_of(self, gateway: Gateway) -> tuple[int, int] | None:
        connections = self.device.rest("GET", "system/connections")["connections"]
        connected = connections.get(gateway.device_id, {}).get("connected", False)
        if not connected or FOLDER not in gateway.peer(self.device.device_id).get("folders", ()):
            return None
        completion = self.device.completion(gateway.device_id, FOLDER)
        complete = (
            completion["completion"] == 100
            and completion["needItems"] == completion["needDeletes"] == 0
            and completion.get("remoteState", "valid") == "valid"
        )
        sequence = gateway.folder(FOLDER).get("sequence")
        if not complete or completion["sequence"] != sequence:
            return None
        events = Counter(line["event"] for line in gateway.log())
        return sequence, events["index of the folder renewed"] + events["log healed"] + events["folder shared"]

    def _differing(self) -> dict[str, str]:
        """Return, by path, how what the store gives with the password differs from the device's folder."""
        expected, found = manifest(self.original), asyncio.run(self._read_all())
        return {
            path: str(found.get(path, "not there"))
            for path in sorted(expected.keys() | found.keys())
            if expected.get(path) != found.get(path)
        }

    async def _read_all(self) -> dict[str, TreeEntry | str]:
        """Return all that the store has of the folder, and errors of what cannot be read."""
        store, found = self.store, dict[str, TreeEntry | str]()
        keys = S3Credentials(store.access_key, store.secret_key)
        bucket = await S3Bucket.open(StoreLocation(store.bucket, ""), store.endpoint_url, keys)
        try:
            async with open_folder(bucket, FOLDER, PASSWORD) as folder, BlockReader(folder) as reader:
                for entry in folder.entries():
                    try:
                        found[str(entry.path)] = await _tree_entry(reader, entry)
                    except UntrustedS3Error as error:
                        found[str(entry.path)] = str(error)
        except DataError as error:
            found["the log"] = str(error)
        finally:
            await bucket.close()
        return found

    def check_with_commands(self) -> None:
        """Fail unless the commands `verify` and `restore` find the device's folder in the store."""
        restored = self._home / "restored"
        with key_holder(self.second, FOLDER) as holder:
            assert holder.run("verify").stdout.endswith(": no damage\n")
            holder.run("restore", restored)
        assert_same_tree(self.original, restored)
        shutil.rmtree(restored)

    def _look_without_device(self, *, knows: bool) -> None:
        """Wait until the gateways say the truth while no device is connected.

        `knows`: one of them has a local state of before. It may be a while until it looks at the store again.
        """
        deadline = time.monotonic() + PATIENCE
        while (complaint := self._complaint(knows)) is not None:
            assert time.monotonic() < deadline, f"{complaint}\n{self._tails()}"
            time.sleep(0.1)

    def _complaint(self, knows: bool) -> str | None:
        differing = self._differing()
        unreadable = {path: found for path, found in differing.items() if not found.startswith(("Entry(", "not there"))}
        if unreadable:
            return f"what cannot be read is not taken back: {unreadable}"
        for gateway in self._running:
            folder = gateway.folder(FOLDER)
            if folder.get("state") != "idle" or folder["pending_files"]:
                return f"the folder has to rest: {folder}"
            problems = gateway.http_get("/readyz")[1].decode()
            if ("files missing" in problems) != bool(folder["missing_files"]):
                return f"{folder['missing_files']} files are missing, and readiness is: {problems}"
            named = {item["name"] for item in folder["missing_examples"]}
            unnamed = [path for path in differing if self._key.encrypt_name(path) not in named]
            if knows and len(unnamed) > folder["missing_files"] - len(named):
                return f"lost and not named: {unnamed}"
        return None

    def _tails(self) -> str:
        return "\n".join(gateway.log_tail(40) for gateway in self._running)


async def _tree_entry(reader: BlockReader, entry: VaultEntry | DamagedEntry) -> TreeEntry | str:
    if isinstance(entry, DamagedEntry):
        return entry.reason
    if entry.kind is not Kind.FILE:
        return TreeEntry("directory", mode=entry.mode)
    data = await reader.read(entry)
    return TreeEntry("file", entry.mode, entry.modified_ns, len(data), hashlib.sha256(data).hexdigest())


def main() -> None:
    """Put back images until one is not told the truth of."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.store_images", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many images to put back")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--manner", choices=MANNERS, help="only images taken like this")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="images-"))
    print(f"seed {options.seed}, in {home}", flush=True)
    numbers = random.Random(options.seed)
    version = SYNCTHING_VERSIONS[options.seed % len(SYNCTHING_VERSIONS)]
    with Images(home, syncthing_binary(version), options.seed, large_share=0.03) as images:
        for number in range(options.rounds):
            plan = Plan.roll(numbers)
            plan = dataclasses.replace(plan, manner=options.manner or plan.manner)
            began = time.monotonic()
            said = images.play(plan)
            print(f"{number + 1}: {plan}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
        images.check_with_commands()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
