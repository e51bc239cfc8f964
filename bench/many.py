"""`python -m bench.many`: what a gateway costs that has many folders and devices, and how soon a lone change is told.

The store is a real SeaweedFS. The devices are scripted. Figures are never asserted.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from bench.filled_store import entry_of, made_up_file
from bench.machine import describe
from bench.many_peers import Address, ManyPeers
from bench.measure import Meter
from bench.patience import PATIENCE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.compat.commands import PROGRAM
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.identity.certificate import generate
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.store import layout
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, PeerRecord, open_store, write_record
from untrusted_s3.store.s3 import S3Bucket

_MIB = 1 << 20
_TOKEN = bytes(50)
_FILES = 10
_LAG = 'untrusted_s3_loop_lag_seconds_bucket{le="'
_PAUSE = 0.02


@click.command()
@click.option("--folders", default=200, show_default=True, type=click.IntRange(min=2))
@click.option("--devices", default=50, show_default=True, type=click.IntRange(min=5))
@click.option("--shared", default=20, show_default=True, type=click.IntRange(min=2), help="Folders of each device.")
@click.option("--seconds", default=180.0, show_default=True, help="How long nothing happens.")
@click.option("--settle", default=60.0, show_default=True, help="How long after the last device has come.")
@click.option("--pending", default=0, show_default=True, help="Files of each of two devices that never come.")
@click.option("--busy", default=2000, show_default=True, help="Files that a folder gets beside a lone change.")
@click.option("--lone", default=5, show_default=True, help="How many lone changes.")
@click.option("--profile", type=click.Path(dir_okay=False, path_type=Path), help="Where a profile is written to.")
def main(
    folders: int,
    devices: int,
    shared: int,
    seconds: float,
    settle: float,
    pending: int,
    busy: int,
    lone: int,
    profile: Path | None,
) -> None:
    """Measure a gateway with many folders and connected devices."""
    click.echo(describe())
    program = PROGRAM if profile is None else (sys.executable, "-m", "cProfile", "-o", str(profile), *PROGRAM[1:])
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as root,
        EmbeddedStore.start(Path(root, "seaweedfs")) as server,
    ):
        identities = [generate() for _ in range(devices)]
        gateway = GatewayProcess(Path(root, "gateway"), server, "many/", program=program)
        gateway.patience = PATIENCE
        records = [FolderRecord(f"folder-{number:03d}", "", _TOKEN) for number in range(folders)]
        asyncio.run(_fill(gateway, records, [identity.device_id for identity in identities], Path(root)))
        with gateway:
            address = Address(gateway.listen_address, gateway.device_id)
            # The first five devices share the same folders; all of them together share all folders.
            starts = [0 if number < 5 else (number - 4) * folders // devices for number in range(devices)]
            shares = [[records[(start + number) % folders] for number in range(shared)] for start in starts]
            with _shown_log(gateway), ManyPeers(address, identities, shares) as peers:
                _wait_shared(gateway, devices, shared)
                time.sleep(settle)
                _idle(gateway, server.pid, seconds)
                _pages(gateway, "nothing pending")
                _lone_changes(peers, records[:shared], busy, lone)
                if pending:
                    _pend(gateway, peers, records[0].folder_id, pending)
                    _pages(gateway, f"{2 * pending:,} pending")


@contextlib.contextmanager
def _shown_log(gateway: GatewayProcess) -> Iterator[None]:
    try:
        yield
    except Exception:
        click.echo(gateway.log_tail(), err=True)
        raise


async def _fill(gateway: GatewayProcess, records: list[FolderRecord], peers: list[DeviceID], directory: Path) -> None:
    store = gateway.store
    assert store is not None
    location = StoreLocation(store.bucket, gateway.prefix)
    bucket = await S3Bucket.open(location, store.endpoint_url, S3Credentials(store.access_key, store.secret_key))
    try:
        await open_store(bucket)
        for peer in peers:
            await write_record(bucket, layout.peer_key(peer), PeerRecord(peer).to_json())
        for record in records:
            await _fill_folder(bucket, record, DeviceID.parse(gateway.device_id), directory)
    finally:
        await bucket.close()


async def _fill_folder(bucket: S3Bucket, record: FolderRecord, writer: DeviceID, directory: Path) -> None:
    keys = FolderKeys.of(record.folder_id)
    await write_record(bucket, keys.record, record.to_json(), create=True)
    state = FolderState(directory / f"{record.folder_id}.sqlite")
    try:
        log = FolderLog(bucket, keys, state, writer)
        await log.load()
        chance = random.Random(record.folder_id)
        await log.append([entry_of(made_up_file(chance)) for _ in range(_FILES)])
    finally:
        state.close()


def _wait_shared(gateway: GatewayProcess, devices: int, shared: int) -> None:
    def all_share() -> bool:
        peers = [peer for peer in gateway.status()["peers"] if len(peer["folders"]) == shared]
        return len(peers) == devices

    gateway.wait_for("all devices", all_share, PATIENCE)


def _idle(gateway: GatewayProcess, store: int, seconds: float) -> None:
    assert gateway.pid is not None
    requests, lag = gateway.store_requests(), _lag(gateway)
    meter = Meter({"gateway": gateway.pid, "store": store})
    time.sleep(seconds)
    cost = meter.stop()
    sent = {kind: count - requests.get(kind, 0) for kind, count in gateway.store_requests().items()}
    for process in ("gateway", "store"):
        used, peak = cost.cpu_seconds[process], cost.peak_bytes[process]
        click.echo(f"{process}, idle: {100 * used / cost.seconds:.2f} % of a core, {peak / _MIB:.0f} MiB resident")
    click.echo(f"requests in {cost.seconds:.0f} s: " + ", ".join(f"{k} {n}" for k, n in sorted(sent.items()) if n))
    click.echo(f"the loop was late by at most {_most(lag, _lag(gateway))} s")


def _lag(gateway: GatewayProcess) -> dict[float, float]:
    samples = gateway.metrics().items()
    return {float(name[len(_LAG) : -2]): value for name, value in samples if name.startswith(_LAG)}


def _most(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """Return the least bound that nothing between two looks at a histogram has exceeded."""
    new = {bound: after[bound] - before[bound] for bound in after}
    return min(bound for bound, count in new.items() if count == new[float("inf")])


def _pages(gateway: GatewayProcess, when: str) -> None:
    assert gateway.pid is not None
    for path in ("/api/status", "/metrics", "/readyz"):
        meter = Meter({"gateway": gateway.pid})
        for _ in range(20):
            status, body = gateway.http_get(path)
            assert status == http.HTTPStatus.OK
        used = meter.stop().cpu_seconds["gateway"]
        click.echo(f"{path}, {when}: {1000 * used / 20:.1f} CPU ms, {len(body):,} bytes")


def _lone_changes(peers: ManyPeers, records: list[FolderRecord], busy: int, count: int) -> None:
    """Have a device make one small change after the other while another one fills a folder; say when a third hears."""
    times = []
    for number in range(count):
        peers.announce(0, records[0].folder_id, busy)
        began = time.monotonic()
        (name,) = peers.announce(1, records[1 + number % (len(records) - 1)].folder_id, 1)
        while (heard := peers.heard(2, name)) is None and time.monotonic() < began + PATIENCE:
            time.sleep(_PAUSE)
        times.append((heard or time.monotonic()) - began)
    click.echo("a lone change beside a busy folder is told after " + ", ".join(f"{one:.1f}" for one in times) + " s")


def _pend(gateway: GatewayProcess, peers: ManyPeers, folder: str, count: int) -> None:
    for peer in (3, 4):
        peers.announce(peer, folder, count, gives=False)

    def announced() -> bool:
        return bool(gateway.folder(folder)["pending_files"] >= 2 * count)

    gateway.wait_for("what is announced", announced, PATIENCE)


if __name__ == "__main__":
    main()
