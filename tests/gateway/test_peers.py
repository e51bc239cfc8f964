"""Which of several connections with one device counts."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.connections.loopback import OURS, Recorder, connected, new_transport
from tests.file_infos import file
from tests.simulated import SimulatedBucket
from tests.simulated.calls import Call, Phase
from tests.sync.host import TOKEN, FakeHost
from tests.waiting import until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.gateway.peers import Peers
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import Settings, SyncSettings
from untrusted_s3.store import layout
from untrusted_s3.store.records import PeerRecord, write_record
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.refused_index import RefusedIndex, Suspect
from untrusted_s3.sync.session import CLIENT_NAME, Session


class Host(FakeHost):
    """A gateway with real peers."""

    def __init__(self, identity: Identity, bucket: SimulatedBucket, state_directory: Path, settings: Settings) -> None:
        super().__init__(identity, bucket, state_directory)
        self.peers = Peers(bucket, identity.device_id, settings)

    async def admit(self, session: Session) -> PeerRecord | None:
        return await self.peers.admit(session)

    def confirm(self, session: Session) -> PeerRecord | None:
        return self.peers.confirm(session)

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        self.peers.refused(device_id, refusals)

    def ended(self, session: Session, error: Exception | None) -> None:
        self.peers.ended(session, error)


class Device(Recorder):
    """The other end of one connection."""

    def __init__(self, identity: Identity, client: str, *, we_dial: bool) -> None:
        super().__init__(identity, dialed=not we_dial, polite=False)
        self._identity, self._client = identity, client

    def secured(self) -> None:
        self.transport.write(self.transport.bep.hello("device", self._client, "v1", 1, 0))

    def received(self, event: events.Event) -> None:
        super().received(event)
        if isinstance(event, events.HelloReceived):
            asyncio.get_running_loop().call_soon(self.transport.admit)

    def share(self) -> None:
        """Sends a cluster config with one folder."""
        own = pb.Device(id=OURS.device_id.raw, encryption_password_token=TOKEN)
        theirs = pb.Device(id=self._identity.device_id.raw, index_id=1)
        self.transport.write(self.transport.bep.cluster_config([pb.Folder(id="f", devices=[own, theirs])], 0))


async def pass_all(call: Call, phase: Phase) -> None:
    """Hold no call up."""


Connect = Callable[..., Awaitable[tuple[Session, Device]]]


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def host(tmp_path: Path, settings: Settings) -> AsyncIterator[Host]:
    opened = Host(OURS, SimulatedBucket(), tmp_path, settings)
    yield opened
    await opened.stop()


@pytest.fixture
async def connect(host: Host) -> AsyncIterator[Connect]:
    """Connects a device and waits until the gateway has let it in."""
    async with AsyncExitStack() as stack:

        async def opened(
            identity: Identity, *, we_dial: bool = False, client: str = "syncthing"
        ) -> tuple[Session, Device]:
            await host.peers.accept(identity.device_id, "device")
            sessions: list[Session] = []

            def new_session(transport: BEPTransport) -> Session:
                sessions.append(Session(host, transport))
                return sessions[0]

            transport = new_transport(OURS, new_session, dialed=we_dial)
            device = Device(identity, client, we_dial=we_dial)
            ends = (device.transport, transport) if we_dial else (transport, device.transport)
            await stack.enter_async_context(connected(*ends))
            await device.hear(events.ClusterConfigReceived)
            return sessions[0], device

        yield opened


async def test_a_newer_connection_counts_once_the_peer_speaks_over_it(host: Host, connect: Connect) -> None:
    identity = generate()
    old, device = await connect(identity)
    device.share()
    await until(lambda: old.shared_folders == ["f"])
    request = asyncio.ensure_future(old.request_block("f", "name", 0, file("a").message.blocks[0]))
    # A peer that has vanished: nothing is read any more, so that the connection cannot be closed in order.
    device.transport.pause_reading()

    new, device = await connect(identity)
    assert host.peers.accepted[identity.device_id].session is old
    device.share()
    await until(lambda: new.shared_folders == ["f"])
    assert host.peers.accepted[identity.device_id].session is new
    assert old.shared_folders == []
    assert host.folders["f"].sources == {identity.device_id: new}
    (error,) = await asyncio.gather(request, return_exceptions=True)
    assert "gone" in str(error), "what was asked of the old connection is asked again at once"


@pytest.mark.parametrize("change", [{"read_only": True}, {"folders": ("g",)}, {"share": ("f",)}])
async def test_a_change_of_what_a_device_may_do_ends_its_session(
    host: Host, connect: Connect, change: dict[str, Any]
) -> None:
    identity = generate()
    session, device = await connect(identity)
    device.share()
    await until(lambda: session.shared_folders == ["f"])
    record = PeerRecord(identity.device_id, "device")
    await host.peers.load()
    assert host.peers.accepted[identity.device_id].session is session
    record = dataclasses.replace(record, **change)
    await write_record(host.bucket, layout.peer_key(identity.device_id), record.to_json())
    await host.peers.load()
    assert (await device.hear(events.CloseReceived)).reason == "settings changed"
    assert session.shared_folders == [] and host.folders["f"].sources == {}
    assert host.peers.accepted[identity.device_id].record == record


async def test_a_refused_index_is_logged_once_and_forgotten_when_a_connection_lasts(
    host: Host, connect: Connect
) -> None:
    identity = generate()
    session, _ = await connect(identity)
    refused = RefusedIndex("handling index for f: siv: authentication failed", (Suspect(OURS.device_id, 1, False),))
    with capture_logs() as logs:
        for _ in range(3):
            host.peers.index_refused(identity.device_id, "f", refused)
    (line,) = [line for line in logs if line["event"].startswith("index refused")]
    assert (line["folder"], line["entries_from"]) == ("f", [str(OURS.device_id)])
    await host.peers.load()
    peer = host.peers.accepted[identity.device_id]
    assert peer.refused_indexes == {"f": refused}
    session.transport.opened -= 200
    await host.peers.load()
    assert peer.refused_indexes == {}


async def test_a_device_that_is_accepted_meanwhile_keeps_what_it_may_do(host: Host) -> None:
    record = PeerRecord(generate().device_id, "by command", read_only=True)
    await write_record(host.bucket, layout.peer_key(record.device_id), record.to_json())
    await host.peers.accept(record.device_id, "by question")
    assert host.peers.records() == [record]
    await host.peers.load()
    assert host.peers.records() == [record]


async def test_a_second_connection_that_the_peer_drops_does_no_harm(host: Host, connect: Connect) -> None:
    """Both have dialed at once, and Syncthing keeps the one that it had first."""
    identity = generate()
    old, device = await connect(identity)
    device.share()
    await until(lambda: old.shared_folders == ["f"])
    _, second = await connect(identity, we_dial=True)
    second.transport.close("already connected")
    await until(lambda: bool(second.ends))
    assert host.peers.accepted[identity.device_id].session is old
    assert host.peers.accepted[identity.device_id].error is None
    assert old.shared_folders == ["f"]


@pytest.mark.parametrize("settings", [Settings(sync=SyncSettings(second_connection_timeout=0.0))])
async def test_a_second_connection_that_says_nothing_is_dropped(host: Host, connect: Connect) -> None:
    identity = generate()
    old, device = await connect(identity)
    device.share()
    await until(lambda: old.shared_folders == ["f"])
    for _ in range(2):
        _, another = await connect(identity)
        assert (await another.hear(events.CloseReceived)).reason == "there is another connection already"
    assert device.ends == []
    assert host.peers.accepted[identity.device_id].session is old


async def test_a_second_connection_has_time_to_speak(host: Host, connect: Connect) -> None:
    identity = generate()
    old, device = await connect(identity)
    device.share()
    await until(lambda: old.shared_folders == ["f"])
    _, second = await connect(identity)
    _, third = await connect(identity)
    assert second.ends == third.ends == []
    assert host.peers.accepted[identity.device_id].session is old


async def test_a_device_has_few_connections(host: Host, connect: Connect) -> None:
    identity = generate()
    old, device = await connect(identity)
    device.share()
    await until(lambda: old.shared_folders == ["f"])
    others = [await connect(identity) for _ in range(8)]
    await until(lambda: sum(not other.ends for _, other in others) == 2)
    assert [bool(other.ends) for _, other in others] == [True] * 6 + [False] * 2, "the oldest are cut"
    assert host.peers.accepted[identity.device_id].session is old and device.ends == []
    newest, last = others[-1]
    last.share()
    await until(lambda: newest.shared_folders == ["f"])
    assert host.peers.accepted[identity.device_id].session is newest
    _, another = others[-2]
    another.transport.close("bye")
    await until(lambda: bool(another.ends))
    await until(lambda: host.peers.accepted[identity.device_id].candidates == [])


async def test_a_device_that_is_accepted_while_the_records_are_listed_stays(settings: Settings) -> None:
    bucket, before, device_id = SimulatedBucket(), generate().device_id, generate().device_id
    peers = Peers(bucket, OURS.device_id, settings)
    other = SimulatedBucket(bucket.store)
    await write_record(other, layout.peer_key(before), PeerRecord(before).to_json())

    async def meanwhile(call: Call, phase: Phase) -> None:
        if (call.operation, phase) == ("list", Phase.ANSWER):
            await peers.accept(device_id, "late")

    await peers.load()
    bucket.gate = meanwhile
    await peers.load()
    assert set(peers.accepted) == {before, device_id}
    bucket.gate = pass_all
    await other.delete(layout.peer_key(before))
    await peers.load()
    assert set(peers.accepted) == {device_id}
    await other.delete(layout.peer_key(device_id))
    await peers.load()
    assert not peers.accepted


async def test_a_damaged_record_hides_no_other_and_takes_nothing_away(settings: Settings) -> None:
    bucket, identity, other = SimulatedBucket(), generate(), generate()
    peers = Peers(bucket, OURS.device_id, settings)
    keys = [layout.peer_key(device.device_id) for device in (identity, other)]
    for device, key in zip((identity, other), keys, strict=True):
        bucket.store.put(key, json.dumps(PeerRecord(device.device_id).to_json()).encode())
    await peers.load()
    bucket.store.put("peers/.DS_Store", b"no JSON")
    bucket.store.put(keys[1], b"no JSON")
    with capture_logs() as log:
        await peers.load()
        await peers.load()
    assert peers.accepted.keys() == {identity.device_id, other.device_id}
    assert sorted((line["event"], line["key"]) for line in log) == sorted(
        ("accepted device not readable", key) for key in ("peers/.DS_Store", keys[1])
    )
    await bucket.delete(keys[1])
    await peers.load()
    assert list(peers.accepted) == [identity.device_id]


@pytest.mark.parametrize("we_dial_first", [False, True])
async def test_two_gateways_that_dial_each_other_at_once_keep_the_same_connection(
    host: Host, connect: Connect, we_dial_first: bool
) -> None:
    """The one that the lower device ID has dialed, whichever came first."""
    identity = generate()
    sides = {}
    for we_dial in (we_dial_first, not we_dial_first):
        sides[we_dial] = await connect(identity, we_dial=we_dial, client=CLIENT_NAME)
    for we_dial in (we_dial_first, not we_dial_first):
        sides[we_dial][1].share()
    we_are_lower = OURS.device_id < identity.device_id
    kept, (_, dropped) = sides[we_are_lower][0], sides[not we_are_lower]
    await until(lambda: kept.shared_folders == ["f"])
    await dropped.hear(events.CloseReceived)
    assert host.peers.accepted[identity.device_id].session is kept


async def test_a_device_that_is_removed_while_it_connects(host: Host, connect: Connect) -> None:
    identity = generate()
    session, device = await connect(identity)
    await host.bucket.delete(layout.peer_key(identity.device_id))
    _, second = await connect(identity)
    await host.bucket.delete(layout.peer_key(identity.device_id))
    await host.peers.load()
    second.share()
    for one in (device, second):
        assert (await one.hear(events.CloseReceived)).reason == "not accepted any more"
    assert host.peers.accepted == {}
    assert host.folders == {}
    assert session.shared_folders == []
