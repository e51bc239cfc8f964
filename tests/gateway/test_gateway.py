"""A whole gateway in this process, on a simulated bucket, with devices on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.connections.loopback import DEFAULTS, Recorder
from tests.file_infos import entry, file
from tests.index.gateways import SimulatedGateway
from tests.simulated import Call, Fault, SimulatedBucket, SimulatedStore, deny_deletions
from tests.waiting import until
from untrusted_s3.addresses import parse_address
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.errors import AddressUnavailable, StateFolderUnusable, StoreUnreachable
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.index.entry import Removal
from untrusted_s3.settings import ConnectionSettings, HTTPSettings, LogSettings, Settings, UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.folder_removal import remove_folder
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossNotes, LostSegments
from untrusted_s3.store.probe import probe_conditional_writes
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import FolderRecord, PeerRecord, write_record

OURS, THEIRS = generate(), generate()
TOKEN = bytes(range(40))
ANY_PORT = "tcp://127.0.0.1:0"


class Bucket(SimulatedBucket):
    """A simulated bucket that says where it is, as a real one does."""

    def __init__(self, store: SimulatedStore | None = None) -> None:
        super().__init__(store)
        self.location = "s3://bucket"
        self.requests: dict[str, int] = {"GET": 7}
        self.received = 0


def tuned(**upkeep: float) -> Settings:
    """Settings with which nothing waits for long."""
    return Settings(
        connections=ConnectionSettings(dial_interval=0.1, max_dial_interval=0.1),
        log=LogSettings(segment_interval=0.01),
        http=HTTPSettings(store_check_lifetime=0),
        upkeep=UpkeepSettings(**{"close_timeout": 0.5, **upkeep}),  # type: ignore[arg-type]
    )


class Device(Recorder):
    """A device that dials a gateway, with a folder to share."""

    def __init__(self, identity: Identity, gateway: Gateway) -> None:
        super().__init__(identity, dialed=True, settings=DEFAULTS)
        self._identity, self._gateway = identity, gateway

    async def connect(self) -> None:
        endpoint = parse_address(self._gateway.listen_addresses[0]).endpoint
        await asyncio.get_running_loop().create_connection(lambda: self.transport, endpoint.host, endpoint.port)

    def share(self, *folder_ids: str) -> None:
        devices = [
            pb.Device(id=self._gateway.device_id.raw, encryption_password_token=TOKEN),
            pb.Device(id=self._identity.device_id.raw, index_id=1),
        ]
        folders = [pb.Folder(id=folder_id, label="Label", devices=devices) for folder_id in folder_ids]
        self.transport.write(self.transport.bep.cluster_config(folders, time.monotonic()))


NewGateway = Callable[..., Awaitable[Gateway]]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
async def new_gateway(bucket: Bucket, tmp_path: Path) -> AsyncIterator[NewGateway]:
    """Start a gateway. All gateways are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def opened(
            identity: Identity = OURS, on: Bucket = bucket, settings: Settings | None = None, listen: str = ANY_PORT
        ) -> Gateway:
            state = tmp_path / identity.device_id.short
            settings = settings or tuned()
            gateway = Gateway(
                on, identity, GatewaySettings((listen,), "127.0.0.1:0", "gateway", state, tuning=settings)
            )
            stack.push_async_callback(gateway.stop)
            await gateway.start()
            return gateway

        yield opened


async def accept(bucket: Bucket, identity: Identity, *addresses: str) -> None:
    record = PeerRecord(identity.device_id, "device", addresses)
    await write_record(bucket, layout.peer_key(identity.device_id), record.to_json())


async def page(gateway: Gateway, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(f"http://{gateway.http_addresses[0]}{path}") as response:
        return response.status, await response.text()


async def test_a_gateway_without_folders_and_devices(new_gateway: NewGateway) -> None:
    gateway = await new_gateway()
    assert gateway.ready
    code, text = await page(gateway, "/api/status")
    status: dict[str, Any] = json.loads(text)
    assert code == 200
    assert status["device_id"] == str(OURS.device_id)
    assert status["store"] == "s3://bucket"
    assert status["folders"] == status["peers"] == status["unknown_devices"] == []
    names = [
        "dial",
        "forget removed devices",
        "heartbeat",
        "keep listening",
        "list present objects",
        "look for removed folders",
        "maintenance",
        "measure the event loop",
        "read accepted devices",
        "read what is lost",
        "scrub",
        "trim busy logs",
        "watch quotas",
        "watch the local disk",
        "write down requests",
    ]
    assert [(task["name"], task["state"]) for task in status["tasks"]] == [(name, "running") for name in names]
    assert await page(gateway, "/readyz") == (200, "ready\n")
    code, metrics = await page(gateway, "/metrics")
    assert code == 200
    assert 'untrusted_s3_store_requests_total{operation="GET"} 7.0' in metrics
    assert 'untrusted_s3_task_running{task="dial"} 1.0' in metrics


async def test_a_device_shares_a_folder(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    gateway = await new_gateway()
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("f")
    await until(lambda: gateway.status()["peers"][0]["folders"] == ["f"])
    (peer,) = gateway.status()["peers"]
    assert peer["connected"] and peer["client"] == "test v1" and peer["error"] is None
    (folder,) = gateway.status()["folders"]
    assert (folder["id"], folder["label"], folder["error"]) == ("f", "Label", None)
    assert FolderKeys.of("f").record in bucket.store.objects
    assert any(task["name"].startswith("folder f: ") for task in gateway.status()["tasks"])
    device.transport.close("bye")
    await until(lambda: not gateway.status()["peers"][0]["connected"])
    assert len(gateway.sessions) == 0


async def test_an_unknown_device_is_shown_and_can_be_accepted(new_gateway: NewGateway) -> None:
    gateway = await new_gateway()
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.end()
    (unknown,) = gateway.status()["unknown_devices"]
    assert (unknown["device_id"], unknown["name"]) == (str(THEIRS.device_id), "name")
    await gateway.accept_device(THEIRS.device_id, "accepted")
    assert gateway.status()["unknown_devices"] == []
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    assert gateway.status()["peers"][0]["name"] == "accepted"


async def test_two_gateways_dial_each_other(new_gateway: NewGateway, bucket: Bucket) -> None:
    one = await new_gateway()
    other_bucket = Bucket()
    await accept(other_bucket, OURS, one.listen_addresses[0])
    await accept(bucket, THEIRS)
    await one.peers.load()
    other = await new_gateway(THEIRS, other_bucket)
    await until(lambda: all(gateway.status()["peers"][0]["connected"] for gateway in (one, other)))


async def test_an_address_where_another_device_answers_is_passed_over(new_gateway: NewGateway, bucket: Bucket) -> None:
    one, third = await new_gateway(), await new_gateway(generate(), Bucket())
    other_bucket = Bucket()
    await accept(other_bucket, OURS, third.listen_addresses[0], one.listen_addresses[0])
    await accept(bucket, THEIRS)
    await one.peers.load()
    other = await new_gateway(THEIRS, other_bucket)
    await until(lambda: other.status()["peers"][0]["connected"])
    assert other.status()["peers"][0]["address"] == one.listen_addresses[0]
    assert third.status()["unknown_devices"] == [], "nothing was said to it"


async def test_vain_attempts_to_dial_leave_nothing(new_gateway: NewGateway, bucket: Bucket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    await accept(bucket, THEIRS, f"tcp://127.0.0.1:{port}", "quic://127.0.0.1:1", "tcp://nas..home:1")
    with capture_logs() as lines:
        gateway = await new_gateway()
        await until(lambda: sum(line["event"] == "dial failed" for line in lines) >= 6)
    assert len(gateway.sessions) == 0
    assert gateway.failing_tasks == []


@pytest.mark.parametrize("listed", [True, False], ids=["while all are listed", "while only the connected are read"])
@pytest.mark.parametrize("removed", [True, False])
async def test_a_device_that_is_removed_or_changed_is_disconnected(
    new_gateway: NewGateway, bucket: Bucket, listed: bool, removed: bool
) -> None:
    await accept(bucket, THEIRS)
    idle_peers = {} if listed else {"idle_peers_after": 0, "idle_peers_interval": 1e6}
    gateway = await new_gateway(settings=tuned(peers_interval=0.01, **idle_peers))
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.transport.write(device.transport.bep.cluster_config([], time.monotonic()))
    if removed:
        await bucket.delete(layout.peer_key(THEIRS.device_id))
    else:
        await write_record(
            bucket, layout.peer_key(THEIRS.device_id), PeerRecord(THEIRS.device_id, "device", read_only=True).to_json()
        )
    reason = (await device.hear(events.CloseReceived)).reason
    assert reason == ("not accepted any more" if removed else "settings changed")
    assert (THEIRS.device_id in gateway.peers.accepted) == (not removed)
    if not listed:
        lists = [call for call in bucket.calls if call.operation == "list" and call.key == layout.PEERS]
        assert len(lists) == 2, "before the start and at it"


async def test_accepted_devices_are_read_while_the_heartbeat_cannot_be_written(
    new_gateway: NewGateway, bucket: Bucket
) -> None:
    gateway = await new_gateway(settings=tuned(peers_interval=0.01))
    bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" else None
    other = Bucket(bucket.store)
    await accept(other, THEIRS)
    with capture_logs():
        await until(lambda: [peer["device_id"] for peer in gateway.status()["peers"]] == [str(THEIRS.device_id)])
    await other.delete(layout.peer_key(THEIRS.device_id))
    await until(lambda: gateway.status()["peers"] == [])
    assert gateway.failing_tasks == [], "a store that does not answer is no internal error"


async def test_a_failing_task_is_visible_and_the_gateway_serves(new_gateway: NewGateway) -> None:
    gateway = await new_gateway()

    async def fails() -> None:
        raise ValueError("no")

    with capture_logs():
        gateway.supervisor.start("extra", fails)
        await until(lambda: gateway.failing_tasks == ["extra"])
    (task,) = [task for task in json.loads((await page(gateway, "/api/status"))[1])["tasks"] if task["failing"]]
    assert task == {
        "name": "extra",
        "state": "waiting to restart",
        "failing": True,
        "failures": 1,
        "error": "ValueError: no",
    }
    assert await page(gateway, "/readyz") == (200, "ready, degraded: extra\n")
    metrics = (await page(gateway, "/metrics"))[1]
    assert 'untrusted_s3_task_failures_total{task="extra"} 1.0' in metrics
    assert 'untrusted_s3_task_running{task="extra"} 0.0' in metrics


async def test_it_is_not_ready_while_the_store_is_away(new_gateway: NewGateway, bucket: Bucket) -> None:
    gateway = await new_gateway()
    bucket.fault = lambda call: Fault.UNREACHABLE
    assert (await page(gateway, "/readyz"))[0] == 503
    with pytest.raises(StoreUnreachable):
        await gateway.check_store()
    bucket.fault = lambda call: None
    assert await page(gateway, "/readyz") == (200, "ready\n")


async def test_a_stop_says_close_and_removes_the_heartbeat(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    gateway = await new_gateway()
    await until(lambda: layout.node_key(OURS.device_id) in bucket.store.objects)
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("f")
    await until(lambda: gateway.status()["peers"][0]["folders"] == ["f"])

    async def leave() -> None:
        assert (await device.hear(events.CloseReceived)).reason == "shutting down"
        device.transport.close("")

    await asyncio.gather(gateway.stop(), leave())
    assert not gateway.ready
    assert layout.node_key(OURS.device_id) not in bucket.store.objects
    assert gateway.listen_addresses == gateway.http_addresses == []
    assert gateway.tasks() == []


async def test_a_stop_while_the_store_is_away_comes_to_an_end(new_gateway: NewGateway, bucket: Bucket) -> None:
    gateway = await new_gateway()
    bucket.fault = lambda call: Fault.UNREACHABLE
    with capture_logs() as lines:
        await gateway.stop()
    assert [line["event"] for line in lines][-1] == "stopped"
    bucket.fault = lambda call: None


async def test_a_port_in_use_ends_the_start(new_gateway: NewGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(AddressUnavailable) as error:
            await new_gateway(listen=address)
    assert error.value.address == address


async def test_folders_come_back_after_a_restart(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    first = await new_gateway()
    device = Device(THEIRS, first)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("f")
    await until(lambda: bool(first.folders.ids))
    device.transport.abort()
    await first.stop()
    second = await new_gateway()
    assert [folder["id"] for folder in second.status()["folders"]] == ["f"]


def garbage_segment(bucket: Bucket) -> None:
    bucket.store.put(FolderKeys.of("bad").segment(1), b"garbage")


def segment_of_another_program(bucket: Bucket) -> None:
    bucket.store.put(FolderKeys.of("bad").segment(1), zlib.compress(b"garbage" * 1000))


def segment_of_a_newer_program(bucket: Bucket) -> None:
    bucket.store.put(FolderKeys.of("bad").segment(1), b"US3SEG\x00\x63" + bytes(100))


def garbage_checkpoint(bucket: Bucket) -> None:
    bucket.store.put(FolderKeys.of("bad").checkpoint(1), b"garbage")


def garbage_record(bucket: Bucket) -> None:
    bucket.store.put(FolderKeys.of("bad").record, b"garbage")


def add_folder(bucket: Bucket, folder_id: str) -> None:
    record = FolderRecord(folder_id, folder_id.title(), TOKEN, 0x1234)
    bucket.store.put(FolderKeys.of(folder_id).record, json.dumps(record.to_json()).encode())


async def test_a_checkpoint_that_cannot_be_read_and_nothing_else(new_gateway: NewGateway, bucket: Bucket) -> None:
    """The gateway goes on with what there is, and says what is lost."""
    add_folder(bucket, "bad")
    garbage_checkpoint(bucket)
    gateway = await new_gateway()
    (folder,) = gateway.status()["folders"]
    assert (folder["state"], folder["error"]) == ("idle", None)
    assert folder["lost"] == ["the log has lost segment 1: what was in it and no device has is lost"]
    assert FolderKeys.of("bad").segment(2) in bucket.store.objects, "nothing is written where something was"


@pytest.mark.parametrize("damage", [garbage_segment, segment_of_another_program], ids=lambda f: f.__name__)
async def test_a_damaged_segment_is_healed_and_said(
    new_gateway: NewGateway, bucket: Bucket, damage: Callable[[Bucket], None]
) -> None:
    add_folder(bucket, "bad")
    damage(bucket)
    body = bucket.store.body(FolderKeys.of("bad").segment(1))
    gateway = await new_gateway()
    (folder,) = gateway.status()["folders"]
    assert (folder["state"], folder["error"]) == ("idle", None)
    kept = FolderKeys.of("bad").damaged_segment(1, body)
    assert bucket.store.body(kept) == body
    assert any(kept in text for text in folder["lost"])


async def test_what_is_lost_stays_said_until_the_operator_has_noted_it(
    new_gateway: NewGateway, bucket: Bucket, tmp_path: Path
) -> None:
    add_folder(bucket, "bad")
    garbage_checkpoint(bucket)
    settings = tuned(record_interval=0.01, losses_interval=0, max_losses_interval=0)
    first, running = await new_gateway(settings=settings), await new_gateway(THEIRS, settings=settings)
    text = "the log has lost segment 1: what was in it and no device has is lost"

    def said(gateway: Gateway) -> tuple[list[str], int]:
        (folder,) = gateway.status()["folders"]
        return folder["lost"], folder["lost_count"]

    assert said(first) == said(running) == ([text], 1)
    await first.stop()
    shutil.rmtree(tmp_path / OURS.device_id.short)
    again = await new_gateway(settings=settings)
    assert said(again) == ([text], 1)
    assert 'untrusted_s3_folder_lost_count{folder="bad"} 1.0' in (await page(again, "/metrics"))[1]
    assert await page(again, "/readyz") == (200, "ready\n"), "what is lost needs no help"
    (key,) = bucket.store.keys(FolderKeys.of("bad").losses)
    del bucket.store.objects[key]
    for gateway in (running, again):
        await until(lambda gateway=gateway: said(gateway) == ([], 0))  # type: ignore[misc]


async def test_a_gateway_hears_of_a_loss_that_another_one_finds(new_gateway: NewGateway, bucket: Bucket) -> None:
    add_folder(bucket, "f")
    gateway = await new_gateway(settings=tuned(record_interval=0.01, losses_interval=0, max_losses_interval=0))
    keys = FolderKeys.of("f")
    await LossNotes(bucket, keys, THEIRS.device_id).write(3, 0, segments=[LostSegments(2, 3, 1, 0)])
    await until(lambda: gateway.status()["folders"][0]["lost_count"] == 1)


async def test_a_damaged_record_of_a_loss_is_local_and_loud(new_gateway: NewGateway, bucket: Bucket) -> None:
    for folder_id in ("bad", "good"):
        add_folder(bucket, folder_id)
    garbage_checkpoint(bucket)
    for key in (FolderKeys.of("bad").loss(7, "a" * 32), FolderKeys.of("bad").losses + "notes.txt"):
        bucket.store.put(key, b"something else")
    gateway = await new_gateway()
    assert gateway.folders.ids == ["bad", "good"]
    folders = {folder["id"]: folder for folder in gateway.status()["folders"]}
    assert folders["bad"]["lost_count"] == 1 and folders["bad"]["state"] == "idle", "the healing went on"
    assert folders["good"]["lost"] == []
    assert await page(gateway, "/readyz") == (200, "ready, degraded: folder bad: losses not readable\n")
    (problem,) = gateway.status()["problems"]
    assert "notes.txt" in problem["error"] and "it is not a key of this program" in problem["error"]


@pytest.mark.parametrize("damage", [lambda call: Fault.UNREACHABLE, lambda call: Fault.REFUSED])
async def test_losses_that_cannot_be_listed_keep_no_folder_closed(
    new_gateway: NewGateway, bucket: Bucket, damage: Callable[[Call], Fault]
) -> None:
    add_folder(bucket, "f")
    bucket.fault = lambda call: damage(call) if call.key == FolderKeys.of("f").losses else None
    gateway = await new_gateway()
    assert gateway.folders.ids == ["f"]
    assert gateway.problems == ["folder f: losses not readable"]


async def test_missing_files_are_counted_after_a_restart(
    new_gateway: NewGateway, bucket: Bucket, tmp_path: Path
) -> None:
    """The log and the local state know them."""
    add_folder(bucket, "folder")
    writer = SimulatedGateway(bucket, 1, tmp_path)
    await writer.log.load()
    missing, other = entry(file("a")), entry(file("b"))
    await writer.log.append([missing, other])
    assert missing.stored is not None
    removal = Removal(layout.name_key(missing.file_info.name), missing.stored.object_name)
    await writer.log.renew(lambda state: ([] if state.missing_count else [removal], []))
    writer.close()
    for _ in range(2):
        gateway = await new_gateway()
        (folder,) = gateway.status()["folders"]
        assert (folder["missing_files"], [one["name"] for one in folder["missing_examples"]]) == (1, [file("a").name])
        assert gateway.problems == ["folder folder: files missing"]
        assert 'untrusted_s3_folder_missing_files{folder="folder"} 1.0' in (await page(gateway, "/metrics"))[1]
        await gateway.stop()


@pytest.mark.parametrize(
    "damage",
    [segment_of_a_newer_program, garbage_record],
    ids=lambda f: f.__name__,
)
async def test_damage_in_one_folder_is_local_and_loud_until_it_is_mended(
    new_gateway: NewGateway, bucket: Bucket, damage: Callable[[Bucket], None]
) -> None:
    await accept(bucket, THEIRS)
    for folder_id in ("bad", "good"):
        add_folder(bucket, folder_id)
    damage(bucket)
    gateway = await new_gateway(settings=tuned(restart_delay=0.05, max_restart_delay=0.2, removal_interval=0.05))
    assert gateway.ready
    bad, good = sorted(json.loads((await page(gateway, "/api/status"))[1])["folders"], key=lambda f: str(f["state"]))
    assert (good["id"], good["state"], good["error"]) == ("good", "idle", None)
    assert bad["state"] == "error" and bad["error"] and bad["files"] == 0
    code, text = await page(gateway, "/readyz")
    assert (code, text) == (200, f"ready, degraded: folder {bad['id']}: not open\n")
    metrics = (await page(gateway, "/metrics"))[1]
    assert f'untrusted_s3_folder_error{{folder="{bad["id"]}"}} 1.0' in metrics
    assert 'untrusted_s3_folder_error{folder="good"} 0.0' in metrics
    assert "untrusted_s3_problems 1.0" in metrics
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("bad", "good")
    await until(lambda: gateway.status()["peers"][0]["folders"] == ["good"])
    assert "the gateway cannot open the folder now" in gateway.status()["peers"][0]["error"]
    config = await device.hear(events.ClusterConfigReceived, 2)
    assert {(one.id, one.stop_reason) for one in config.folders} == {("bad", pb.PAUSED), ("good", pb.RUNNING)}
    for key in (FolderKeys.of("bad").segment(1), FolderKeys.of("bad").checkpoint(1)):
        bucket.store.objects.pop(key, None)
    add_folder(bucket, "bad")
    await until(lambda: gateway.folders.ids == ["bad", "good"])
    assert (await device.hear(events.CloseReceived)).reason == "a folder is opened again"
    assert gateway.problems == [] and await page(gateway, "/readyz") == (200, "ready\n")


@pytest.mark.parametrize("file", ["state.sqlite", "pending.sqlite"])
@pytest.mark.parametrize("keep", [0, 100, 4096])
async def test_local_files_that_are_damaged_are_made_again(
    new_gateway: NewGateway, bucket: Bucket, tmp_path: Path, file: str, keep: int
) -> None:
    for folder_id in ("bad", "good"):
        add_folder(bucket, folder_id)
    await (await new_gateway()).stop()
    (damaged,) = [path for path in tmp_path.rglob(file) if "bad" in path.parts]
    body = damaged.read_bytes()
    damaged.write_bytes(body[:keep] + b"\xa5" * (len(body) - keep))
    gateway = await new_gateway()
    assert [(folder["id"], folder["error"]) for folder in gateway.status()["folders"]] == [
        ("bad", None),
        ("good", None),
    ]
    assert gateway.problems == []


@pytest.mark.parametrize("file", ["state.sqlite", "pending.sqlite"])
async def test_local_files_that_cannot_be_made_stop_no_other_folder(
    new_gateway: NewGateway, bucket: Bucket, tmp_path: Path, file: str
) -> None:
    for folder_id in ("bad", "good"):
        add_folder(bucket, folder_id)
    await (await new_gateway()).stop()
    (damaged,) = [path for path in tmp_path.rglob(file) if "bad" in path.parts]
    damaged.unlink()
    damaged.mkdir()
    gateway = await new_gateway(settings=tuned(restart_delay=0.05))
    assert gateway.folders.ids == ["good"] and gateway.problems == ["folder bad: not open"]
    damaged.rmdir()
    await until(lambda: gateway.folders.ids == ["bad", "good"] and gateway.problems == [])


async def test_a_stray_record_of_a_device_stops_no_other(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    key = layout.peer_key(generate().device_id)
    bucket.store.put(key, b"no JSON")
    gateway = await new_gateway(settings=tuned(peers_interval=0.01))
    assert [peer["device_id"] for peer in gateway.status()["peers"]] == [str(THEIRS.device_id)]
    assert gateway.problems == [f"{key}: not readable"]
    await bucket.delete(key)
    await until(lambda: gateway.problems == [])


async def test_a_folder_that_is_removed_is_dropped_and_its_peers_come_again(
    new_gateway: NewGateway, bucket: Bucket
) -> None:
    await accept(bucket, THEIRS)
    add_folder(bucket, "f")
    gateway = await new_gateway(settings=tuned(removal_interval=0.01))
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("f")
    await until(lambda: gateway.status()["peers"][0]["folders"] == ["f"])
    await remove_folder(Bucket(bucket.store), "f")
    assert (await device.hear(events.CloseReceived)).reason == "a folder was removed"
    await until(lambda: gateway.folders.ids == [])
    (folder,) = gateway.status()["folders"]
    assert folder["state"] == "error" and "remov" in folder["error"]
    assert bucket.store.keys("folders/") == [], "nothing is written to it again"


async def test_the_state_folder_is_tried_at_the_start(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "state").write_text("a file")
    gateway = Gateway(bucket, OURS, GatewaySettings((ANY_PORT,), None, "gateway", tmp_path / "state"))
    with pytest.raises(StateFolderUnusable, match="state"):
        await gateway.start()
    await gateway.stop()


async def test_a_disk_that_is_nearly_full_is_shown(new_gateway: NewGateway) -> None:
    gateway = await new_gateway(settings=tuned(min_free_disk=1 << 62))
    assert await page(gateway, "/readyz") == (200, "ready, degraded: the local disk\n")
    (problem,) = json.loads((await page(gateway, "/api/status"))[1])["problems"]
    assert problem["name"] == "the local disk" and "nearly full" in problem["error"]
    assert "untrusted_s3_problems 1.0" in (await page(gateway, "/metrics"))[1]


async def test_a_quota_holds_files_up_until_it_is_raised(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    await write_quotas(bucket, Quotas({"f": 0}))
    gateway = await new_gateway(settings=tuned(record_interval=0.01, quota_interval=0.01))
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.share("f")
    await until(lambda: gateway.status()["peers"][0]["folders"] == ["f"])
    index = device.transport.bep.index(
        "f", [file("a", sequence=1).raw], update=False, prev_sequence=0, last_sequence=1, now=time.monotonic()
    )
    device.transport.write(index)
    await until(lambda: bool(gateway.status()["folders"][0]["limits_reached"]))
    (folder,) = gateway.status()["folders"]
    assert (folder["state"], folder["error"]) == ("error", "the quota of the folder, 0 B, is reached")
    assert (folder["quota"], folder["pending_files"]) == (0, 1)
    assert await page(gateway, "/readyz") == (200, "ready, degraded: folder f: files wait for room\n")
    assert 'untrusted_s3_folder_limits_reached{folder="f"} 1.0' in (await page(gateway, "/metrics"))[1]
    await write_quotas(bucket, Quotas({}, {THEIRS.device_id: 0}))
    await until(lambda: [one["kind"] for one in gateway.status()["folders"][0]["limits_reached"]] == ["device"])
    (peer,) = gateway.status()["peers"]
    assert (peer["quota"], peer["used_bytes"]) == (0, 0)
    assert "untrusted_s3_peer_quota{" in (await page(gateway, "/metrics"))[1]
    await write_quotas(bucket, Quotas())
    assert (await device.hear(events.RequestReceived)).name == file("a").name
    await until(lambda: gateway.status()["folders"][0]["error"] is None)


async def test_a_gateway_that_may_not_delete_is_well(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    bucket.fault = deny_deletions
    await probe_conditional_writes(bucket)  # as `serve` does
    with capture_logs() as log:
        gateway = await new_gateway()
        device = Device(THEIRS, gateway)
        await device.connect()
        await device.hear(events.ClusterConfigReceived)
        device.share("f")
        await until(lambda: gateway.status()["peers"][0]["folders"] == ["f"])
        assert gateway.status()["denied"] == ["DeleteObject"]
        assert await page(gateway, "/readyz") == (200, "ready\n")
        metrics = (await page(gateway, "/metrics"))[1]
        assert 'untrusted_s3_deletion_denied{operation="DeleteObject"} 1.0' in metrics
        (folder,) = gateway.status()["folders"]
        assert (folder["error"], gateway.status()["problems"], gateway.failing_tasks) == (None, [], [])
        await gateway.stop()
    assert bucket.count("delete") == 1, "nothing is tried again, neither by upkeep nor at the end"
    said = [line["event"] for line in log]
    assert said.count("upkeep left to others") == 1
    assert not {"log not trimmed", "garbage not collected", "old uploads not aborted", "heartbeat not written"} & {
        *said
    }
