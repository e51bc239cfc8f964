"""The gateway is killed at every kind of request that it sends to the store.

The test learns the kinds from the requests themselves, so none is forgotten. After each kill the gateway is started
again, sometimes without its state, and must reach the state that it would have without the kill.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, fetched_folder
from tests.interop.stored_log import check_log
from tests.peers.debian import SyncthingVersion
from tests.peers.fault_proxy import Fault, FaultProxy, Moment, Reset, no_fault
from tests.peers.gateway import Gateway
from tests.peers.store_requests import StoreRequest
from tests.peers.syncthing import Syncthing, SyncthingFailed
from tests.peers.trees import assert_same_tree, count_files, random_file
from tests.waiting import PATIENCE
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.index.entry import Entry
from untrusted_s3.settings import LogSettings, Settings, SyncSettings, UpkeepSettings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.units import MIB

pytestmark = pytest.mark.interop

FOLDER = "killed"
# A checkpoint after every other segment, and short pauses.
SETTINGS = Settings(
    log=LogSettings(
        checkpoint_cost=2 * LogSettings().segment_cost,
        checkpoint_share=0.0,
        segment_interval=0.05,
        poll_interval=0.5,
        idle_poll_interval=0.5,
        cursor_interval=0.5,
    ),
    sync=SyncSettings(pull_retry_interval=0.5),
    upkeep=UpkeepSettings(heartbeat_interval=1.0, peers_interval=1.0),
)


# Seconds in which periodic requests come, twice or more often
_PERIODIC = 2.5


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Strike:
    """A kill at the first request of a class."""

    request_class: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.request_class}, {self.moment.name.lower()}"


# Kills that leave the most behind for the next start.
_LEAVING = [Strike("UploadPart object", Moment.AFTER), Strike("PutObject object", Moment.AFTER)]


class Walk:
    """One device that changes its folder, and a gateway that is killed meanwhile."""

    def __init__(self, store: EmbeddedStore, prefix: str, proxy: FaultProxy, device: Syncthing, home: Path) -> None:
        self.proxy = proxy
        self.device = device
        self.tree = home / "original"
        self._store = store
        self._prefix = prefix
        self._home = home
        self._numbers = itertools.count()
        self.gateway = self.new_gateway()
        # Each class of requests that was seen, and the strike before it.
        self.seen: dict[str, Strike | None] = {}
        self._struck: list[Strike] = []

    def new_gateway(self) -> Gateway:
        """Return a gateway on an empty prefix, which the device knows."""
        number = next(self._numbers)
        options = ["--endpoint-url", self.proxy.url]
        home = self._home / f"gateway {number}"
        gateway = Gateway(home, self._store, f"{self._prefix}-{number}", options=options, settings=SETTINGS)
        self.device.add_device(gateway.device_id, home.name, untrusted=True)
        return gateway

    def share_with(self, gateway: Gateway) -> None:
        """Share the folder with this gateway only, which dials."""
        gateway.add_peer(self.device.device_id, [self.device.listen_address])
        devices = [{"deviceID": gateway.device_id, "encryptionPassword": PASSWORD}]
        self.device.set_folder(FOLDER, devices=devices)

    def change(self, large: bool = True) -> None:
        """Change the folder in every way; without `large`, do not touch large files."""
        number, tree = next(self._numbers), self.tree
        random_file(tree / f"new {number}", 3000, seed=number)
        random_file(tree / "edited", 2000 + number, seed=number)
        if large:
            random_file(tree / "large", 9 * MIB, seed=number)
            with (tree / "changed in part").open("r+b" if number > 1 else "w+b") as file:
                file.truncate(17 * MIB)  # several parts
                file.write(b"%d" % number)
        (tree / f"directory {number}").mkdir()
        for old in (tree / f"new {number - 3}", tree / f"directory {number - 3}"):
            if old.is_dir():
                old.rmdir()
            else:
                old.unlink(missing_ok=True)
        self.device.scan(FOLDER)

    def settle(self, gateway: Gateway) -> dict[str, Entry]:
        """Wait until the gateway has everything, and return what the log says."""
        gateway.wait_connected(self.device.device_id)
        self.device.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=count_files(self.tree))
        return check_log(gateway, FOLDER)

    def newly_seen(self) -> list[str]:
        """Return the request classes that are new since the last call."""
        new = sorted(self.proxy.counts.keys() - self.seen.keys())
        self.seen |= dict.fromkeys(new, self._struck[-2] if len(self._struck) > 1 else None)
        return new

    def strike(self, strike: Strike) -> None:
        """Kill the gateway at such a request, and provoke the request in whichever way succeeds."""
        provoked_by = self.seen[strike.request_class]
        ways = (_nothing, self._lose_state, self._begin_with_nothing)
        assert (
            (provoked_by is not None and self._hit(provoked_by) and self._hit(strike))
            or any(self._hit(strike, prepare) for prepare in ways)
            or any(self._hit(first) and self._hit(strike) for first in _LEAVING)
        ), f"{strike}: does not come again"

    def _hit(self, strike: Strike, prepare: Callable[[], None] = _nothing) -> bool:
        prepare()
        struck = threading.Event()
        gateway = self.gateway

        def kill() -> None:
            if gateway.process is not None:
                gateway.process.kill()
                struck.set()

        def script(request: StoreRequest) -> Fault | None:
            hit = request.request_class == strike.request_class and not struck.is_set()
            return Reset(strike.moment, kill) if hit else None

        self.proxy.script = script
        operation = strike.request_class.split()[0]
        self.change(large=prepare is not _nothing or "part" in operation.lower() or operation == "HeadObject")
        with contextlib.suppress(GatewayUnreachable):
            if gateway.process is None:
                gateway.start()
            self._wait_complete(struck)
        self.proxy.script = no_fault
        if struck.is_set():
            gateway.kill()
            check_log(gateway, FOLDER)
            self._struck.append(strike)
        return struck.is_set()

    def _wait_complete(self, struck: threading.Event) -> None:
        """Wait until it has struck, or until some time after all is done."""
        deadline = time.monotonic() + PATIENCE
        while not struck.is_set():
            assert time.monotonic() < deadline, "the device never sees the gateway complete"
            with contextlib.suppress(SyncthingFailed):
                self.device.wait_completion(self.gateway.device_id, FOLDER, timeout=0.2)
                struck.wait(_PERIODIC)
                return

    def _lose_state(self) -> None:
        self.gateway.kill()
        shutil.rmtree(self.gateway.state, ignore_errors=True)

    def _begin_with_nothing(self) -> None:
        self.gateway.kill()
        self.gateway = self.new_gateway()
        self.share_with(self.gateway)


@pytest.fixture
def proxy(seaweedfs: EmbeddedStore) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url) as running:
        yield running


def test_killed_at_every_kind_of_request(
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    proxy: FaultProxy,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
) -> None:
    with Syncthing(syncthing_binaries["1.29.5"], tmp_path / "first", "first") as first:
        walk = Walk(seaweedfs, bucket_prefix, proxy, first, tmp_path)
        first.add_folder(FOLDER, walk.tree, {})
        walk.share_with(walk.gateway)
        for _ in range(2):
            walk.gateway.start()
            for _ in range(2):
                walk.change()
                walk.settle(walk.gateway)
            walk.gateway.kill()

        todo: deque[Strike] = deque()
        strikes = 0
        began = time.monotonic()
        while True:
            todo += [strike for name in walk.newly_seen() for strike in _strikes(name)]
            if not todo:
                break
            strike = todo.popleft()
            walk.strike(strike)
            strikes += 1
            print(f"{time.monotonic() - began:6.1f} s  {strike}")
            if strikes % 3 == 0:
                shutil.rmtree(walk.gateway.state, ignore_errors=True)
        print(f"{strikes} strikes")

        walk.gateway.start()
        walk.settle(walk.gateway)
        left = check_log(walk.gateway, FOLDER, contents=True)
        first_totals = walk.gateway.wait_folder(FOLDER)
        first.stop()
        with fetched_folder(
            syncthing_binaries["1.19.2"],
            tmp_path / "second",
            walk.gateway,
            FOLDER,
            tmp_path / "copy",
            count_files(walk.tree),
        ):
            assert_same_tree(walk.tree, tmp_path / "copy")
        first.start()
        walk.gateway.stop()

        undisturbed = walk.new_gateway()
        walk.share_with(undisturbed)
        with undisturbed:
            assert _outcome(walk.settle(undisturbed)) == _outcome(left)
            totals = undisturbed.folder(FOLDER)
            for field in ("files", "directories", "deleted", "bytes"):
                assert totals[field] == first_totals[field]


def _strikes(request_class: str) -> list[Strike]:
    """Return the strikes of a class.

    Writes are struck after the store has acted: before it, the state is that after the previous request. The most
    important writes are struck before and after.
    """
    if request_class.startswith(("Get", "Head", "List")):
        return [Strike(request_class, Moment.BEFORE)]
    both = request_class in ("PutObject segment", "CompleteMultipartUpload object")
    return [Strike(request_class, moment) for moment in ([Moment.BEFORE] if both else []) + [Moment.AFTER]]


def _outcome(log: dict[str, Entry]) -> dict[str, object]:
    """Return what two logs of one folder have in common; each encryption makes other file infos and ciphertexts."""
    return {
        name: (
            entry.file_info.message.version.SerializeToString(),
            entry.file_info.message.deleted,
            entry.stored and (entry.stored.object_name, entry.stored.part_size),
        )
        for name, entry in log.items()
    }
