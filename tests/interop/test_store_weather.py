"""An unreliable store: slow, throttling, resetting connections, full, hanging, or away.

Peers get errors that they retry, no data that the gateway has acknowledged is lost, and everything recovers by itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, rescan, wait_same_tree
from tests.peers.debian import SyncthingVersion
from tests.peers.fault_proxy import (
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer,
    Delay,
    FaultProxy,
    Moment,
    Reset,
    Script,
    no_fault,
    random_faults,
    store_full,
)
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import build_awkward_tree, count_files, random_file
from untrusted_s3.settings import HTTPSettings, LogSettings, Settings, StoreSettings, SyncSettings, UpkeepSettings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.units import MIB

pytestmark = pytest.mark.interop

FOLDER = "weather"
# Short pauses, so minutes become seconds.
HURRIED = Settings(
    store=StoreSettings(timeout=3.0),
    log=LogSettings(poll_interval=0.5, idle_poll_interval=0.5, max_append_delay=1.0),
    sync=SyncSettings(pull_retry_interval=0.5, max_pull_retry_interval=2.0),
    upkeep=UpkeepSettings(heartbeat_interval=1.0, peers_interval=1.0, stop_timeout=3.0),
    http=HTTPSettings(store_check_lifetime=0.0),
)
# `WEATHER_AWAY_SECONDS=600` uses the default settings.
AWAY_SECONDS = float(os.environ.get("WEATHER_AWAY_SECONDS", "8"))


@pytest.fixture
def proxy(seaweedfs: EmbeddedStore) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url) as running:
        yield running


@contextlib.contextmanager
def gateway_behind(
    proxy: FaultProxy, seaweedfs: EmbeddedStore, prefix: str, home: Path, settings: Settings
) -> Iterator[Gateway]:
    """Run a gateway that reaches its store through the proxy. The test itself reads the store directly."""
    with Gateway(home, seaweedfs, prefix, options=["--endpoint-url", proxy.url], settings=settings) as gateway:
        yield gateway


def accept(device: Syncthing, gateway: Gateway) -> None:
    """Make the two accept and connect to each other."""
    gateway.add_peer(device.device_id)
    device.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
    device.wait_connected(gateway.device_id)


def share_impatiently(device: Syncthing, gateway: Gateway, path: Path) -> None:
    """Share a folder between two that know each other. Syncthing retries failed files after a second, not a minute."""
    device.add_folder(FOLDER, path, {gateway.device_id: PASSWORD}, pullerPauseS=1)
    device.rest("POST", "db/scan", folder=FOLDER)  # pulls may have failed by now


def is_ready(gateway: Gateway) -> bool:
    return gateway.http_status("/readyz") == 200


def wait_ready(gateway: Gateway, *, ready: bool = True) -> None:
    gateway.wait_for("readiness" if ready else "its end", lambda: is_ready(gateway) is ready)


def test_every_kind_of_request_fails_at_random(
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    proxy: FaultProxy,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    random_file(original / "large", 20 * MIB, seed=20)
    with (
        gateway_behind(proxy, seaweedfs, bucket_prefix, tmp_path / "gateway", HURRIED) as gateway,
        Syncthing(syncthing_binaries["1.19.2"], tmp_path / "first", "first") as first,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "second", "second") as second,
    ):
        for device in (first, second):
            accept(device, gateway)
        proxy.script = random_faults(seed=1, probability=0.2)
        share_impatiently(first, gateway, original)
        first.wait_completion(gateway.device_id, FOLDER)
        share_impatiently(second, gateway, copy)
        second.wait_in_sync(FOLDER, count_files(original))
        wait_same_tree(gateway, original, copy)

        (original / "sizes" / "131073 bytes").unlink()
        random_file(original / "large", 21 * MIB, seed=21)
        rescan(first, gateway, FOLDER)
        proxy.script = no_fault
        second.wait_in_sync(FOLDER, count_files(original))
        wait_same_tree(gateway, original, copy)
        gateway.wait_folder(FOLDER, files=count_files(original), error=None)
        assert proxy.faults.total() > 20, proxy.faults


WEATHERS: dict[str, Script] = {
    "slow": lambda request: Delay(0.2),
    "throttling": random_faults(1, 0.6, [SLOW_DOWN]),
    "resetting": random_faults(2, 0.5, [Reset(moment) for moment in Moment]),
    "full, as Ceph says it": store_full(Answer(403, "QuotaExceeded")),
    "full, as MinIO says it": store_full(Answer(507, "XMinioStorageFull")),
    "full, as SeaweedFS says it": store_full(INTERNAL_ERROR),
    "hanging": lambda request: Delay(3600),
}
# With these, nothing can be stored.
SHUT = {name for name in WEATHERS if name.startswith(("full", "hanging"))}


def test_one_weather_after_the_other(
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    proxy: FaultProxy,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    for number in range(20):
        random_file(original / f"{number}", 10_000, seed=number)
    with (
        gateway_behind(proxy, seaweedfs, bucket_prefix, tmp_path / "gateway", HURRIED) as gateway,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "first", "first") as first,
        Syncthing(syncthing_binaries["1.19.2"], tmp_path / "second", "second") as second,
    ):
        for device in (first, second):
            accept(device, gateway)
        share_impatiently(first, gateway, original)
        share_impatiently(second, gateway, copy)
        second.wait_in_sync(FOLDER, count_files(original))
        for number, (name, script) in enumerate(WEATHERS.items()):
            before = gateway.wait_folder(FOLDER, error=None)
            proxy.script = script
            random_file(original / f"new in {name}", 10_000, seed=100 + number)
            random_file(original / "changing", 9 * MIB, seed=100 + number)
            (original / f"{number}").unlink()
            first.scan(FOLDER)
            if name in SHUT:
                gateway.wait_for(
                    f"an error while the store is {name}", lambda: gateway.folder(FOLDER)["state"] == "error"
                )
                shown = gateway.folder(FOLDER)
                assert name[:4] != "full" or name.endswith("SeaweedFS says it") or "full" in shown["error"], shown
                assert shown["files"] >= before["files"] - 1
                assert first.completion(gateway.device_id, FOLDER)["completion"] < 100
                wait_ready(gateway, ready=name != "hanging")
                proxy.script = no_fault
                if name == "hanging":
                    proxy.drop_connections()
            first.wait_completion(gateway.device_id, FOLDER)
            second.wait_in_sync(FOLDER, count_files(original))
            proxy.script = no_fault
            wait_same_tree(gateway, original, copy)
            gateway.wait_folder(FOLDER, files=count_files(original), error=None)
            wait_ready(gateway)
            for device in (first, second):
                assert gateway.peer(device.device_id)["connected"]

        # It can be stopped while nothing answers.
        proxy.script = lambda request: Delay(3600)
        random_file(original / "changing", 9 * MIB, seed=1000)
        first.scan(FOLDER)
        gateway.wait_for("hanging requests", lambda: proxy.requests[-1].operation in ("HeadObject", "ListObjects"))
        assert gateway.stop() == 0


def test_the_store_is_away_for_long(
    seaweedfs: EmbeddedStore,
    bucket_prefix: str,
    proxy: FaultProxy,
    syncthing_binaries: dict[SyncthingVersion, Path],
    tmp_path: Path,
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    settings = HURRIED if AWAY_SECONDS < 60 else Settings()
    with (
        gateway_behind(proxy, seaweedfs, bucket_prefix, tmp_path / "gateway", settings) as gateway,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "first", "first") as first,
        Syncthing(syncthing_binaries["1.29.5"], tmp_path / "second", "second") as second,
    ):
        for device in (first, second):
            accept(device, gateway)
        share_impatiently(first, gateway, original)
        first.wait_completion(gateway.device_id, FOLDER)
        acknowledged = gateway.wait_folder(FOLDER, files=count_files(original))
        wait_ready(gateway)

        proxy.go_away()
        left = time.monotonic()
        # A fresh device gets the index while the store is away, but no block.
        share_impatiently(second, gateway, copy)
        for number in range(300):
            random_file(original / "while it was away" / f"{number}", 5000, seed=number)
        random_file(original / "large", 40 * MIB, seed=40)
        (original / "sizes" / "1024 bytes").unlink()
        first.scan(FOLDER)
        gateway.wait_for("the error", lambda: gateway.folder(FOLDER)["state"] == "error")
        gateway.wait_for("blocks asked for in vain", lambda: gateway.logged("object not read"))
        gateway.wait_for("the store to be missed", lambda: not is_ready(gateway))
        received = 0
        while time.monotonic() - left < AWAY_SECONDS:
            time.sleep(0.5)
            shown = gateway.folder(FOLDER)
            assert (shown["state"], shown["files"]) == ("error", acknowledged["files"])
            assert shown["pending_files"] > 0
            assert not is_ready(gateway)
            assert gateway.http_status("/healthz") == 200
            assert first.completion(gateway.device_id, FOLDER)["completion"] < 100
            for device in (first, second):
                assert gateway.peer(device.device_id)["connected"]
            received = gateway.counter("block_bytes_received")
        lines = len(gateway.log())
        proxy.come_back()

        back = time.monotonic()
        wait_ready(gateway)
        first.wait_completion(gateway.device_id, FOLDER)
        took = time.monotonic() - back
        second.wait_in_sync(FOLDER, count_files(original))
        wait_same_tree(gateway, original, copy)
        gateway.wait_folder(FOLDER, files=count_files(original), error=None)
        print(
            f"away for {AWAY_SECONDS:.0f} s, all stored {took:.1f} s after; meanwhile {received / MIB:.0f} MiB fetched,"
            f" {lines} lines logged; peak memory {gateway.peak_memory() / MIB:.0f} MiB"
        )
        assert gateway.peak_memory() < 400 * MIB
