"""A whole gateway in this process, on a simulated bucket, with devices on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.connections.loopback import DEFAULTS, Recorder, until
from tests.simulated import Fault, SimulatedBucket, SimulatedStore
from untrusted_s3.addresses import parse_address
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.errors import AddressUnavailable, StoreUnreachable
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import ConnectionSettings, HTTPSettings, LogSettings, Settings, UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import PeerRecord, write_record

OURS, THEIRS = generate(), generate()
TOKEN = bytes(range(40))
ANY_PORT = "tcp://127.0.0.1:0"


class Bucket(SimulatedBucket):
    """A simulated bucket that says where it is, as a real one does."""

    def __init__(self, store: SimulatedStore | None = None) -> None:
        super().__init__(store)
        self.location = "s3://bucket"
        self.requests: dict[str, int] = {"GET": 7}


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

    def share(self, folder_id: str) -> None:
        devices = [
            pb.Device(id=self._gateway.device_id.raw, encryption_password_token=TOKEN),
            pb.Device(id=self._identity.device_id.raw, index_id=1),
        ]
        folder = pb.Folder(id=folder_id, label="Label", devices=devices)
        self.transport.write(self.transport.bep.cluster_config([folder], time.monotonic()))


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
    names = ["dial", "heartbeat", "maintenance", "read accepted devices"]
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


async def test_a_device_that_is_removed_is_disconnected(new_gateway: NewGateway, bucket: Bucket) -> None:
    await accept(bucket, THEIRS)
    gateway = await new_gateway(settings=tuned(heartbeat_interval=0.01))
    device = Device(THEIRS, gateway)
    await device.connect()
    await device.hear(events.ClusterConfigReceived)
    device.transport.write(device.transport.bep.cluster_config([], time.monotonic()))
    await bucket.delete(layout.peer_key(THEIRS.device_id))
    assert (await device.hear(events.CloseReceived)).reason == "not accepted any more"


async def test_accepted_devices_are_read_while_the_heartbeat_cannot_be_written(
    new_gateway: NewGateway, bucket: Bucket
) -> None:
    gateway = await new_gateway(settings=tuned(heartbeat_interval=0.01))
    bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" else None
    other = Bucket(bucket.store)
    await accept(other, THEIRS)
    with capture_logs():
        await until(lambda: [peer["device_id"] for peer in gateway.status()["peers"]] == [str(THEIRS.device_id)])
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
