"""A session with a scripted peer, over TLS on loopback, with real folders on a simulated bucket."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.connections.loopback import OURS, THEIRS, Recorder, connected, new_transport
from tests.file_infos import deleted, directory, encrypted_name, file, plaintext
from tests.simulated import SimulatedBucket
from tests.sync.fakes import has
from tests.sync.host import SETTINGS, THEIR_INDEX, TOKEN, FakeHost, offered
from tests.sync.scripted_device import Device as ScriptedDevice
from tests.sync.wire import Wire
from tests.virtual_time import virtual_time
from tests.waiting import give_a_chance, until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.bep.wire import encode_varint
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.errors import BlockUnavailable, StoreUnreachable
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.records import FolderRecord, PeerRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.refused_index import RefusedIndex, Suspect
from untrusted_s3.sync.session import Session

SYNC = SyncSettings()


class Peer(Recorder):
    """The scripted peer: a trusted Syncthing."""

    def __init__(self) -> None:
        super().__init__(THEIRS, dialed=True)
        self.answers: Callable[[events.RequestReceived], Awaitable[tuple[bytes, int]]] | None = None

    def received(self, event: events.Event) -> None:
        super().received(event)
        if isinstance(event, events.RequestReceived) and self.answers is not None:
            answer = asyncio.ensure_future(self._answer(event, self.answers))
            answer.add_done_callback(lambda task: task.exception())

    async def _answer(
        self,
        request: events.RequestReceived,
        answers: Callable[[events.RequestReceived], Awaitable[tuple[bytes, int]]],
    ) -> None:
        data, code = await answers(request)
        self.respond(request.id, data, code)

    def respond(self, request_id: int, data: bytes, code: int = pb.NO_ERROR) -> None:
        self.transport.write(*self.transport.bep.response(request_id, memoryview(data), code, time.monotonic()))

    def share(self, *folders: pb.Folder) -> None:
        self.transport.write(self.transport.bep.cluster_config(folders, time.monotonic()))

    def index(self, *raw: bytes, update: bool = False, folder: str = "f") -> None:
        last = max((pb.FileInfo.FromString(one).sequence for one in raw), default=0)
        self.transport.write(
            self.transport.bep.index(
                folder, raw, update=update, prev_sequence=0, last_sequence=last, now=time.monotonic()
            )
        )

    def request(self, info: FileInfo, number: int = 0, **changes: object) -> None:
        block = info.message.blocks[number]
        request = pb.Request(
            id=7, folder="f", name=info.name, offset=block.offset, size=block.size, hash=block.hash, block_no=number
        )
        for name, value in changes.items():
            setattr(request, name, value)
        self.transport.write(encode_frame(pb.REQUEST, request.SerializeToString()))


def block_data(block_hash: bytes, size: int) -> bytes:
    return hashlib.shake_128(block_hash).digest(size)


async def right_answer(request: events.RequestReceived) -> tuple[bytes, int]:
    return block_data(request.hash, request.size), pb.NO_ERROR


class Talk:
    """A gateway's session, its host and its peer."""

    def __init__(self, host: FakeHost, session: Session, peer: Peer) -> None:
        self.host, self.session, self.peer = host, session, peer

    @property
    def folder(self) -> Folder:
        return self.host.folders["f"]

    async def shared(self) -> None:
        """Let the peer share the folder; wait until both sides have sent their cluster configs."""
        self.peer.share(offered())
        await until(lambda: self.session.shared_folders == ["f"])

    async def stored(self, *infos: FileInfo) -> None:
        """Let the peer announce these; wait until they are in the log."""
        self.peer.answers = right_answer
        self.peer.index(*(info.raw for info in infos), update=True)
        await until(lambda: all(has(self.folder, info) for info in infos))

    async def answer_to(self, request_id: int = 7) -> events.ResponseReceived:
        await until(lambda: any(one.id == request_id for one in self.peer.all(events.ResponseReceived)))
        return next(one for one in self.peer.all(events.ResponseReceived) if one.id == request_id)


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Talk]]]:
    """Connect a gateway's session and a peer, which is accepted unless `accepts` is false."""
    async with AsyncExitStack() as stack:

        async def opened(
            *, accepts: bool = True, share: Sequence[str] = (), sync: SyncSettings = SYNC, **rights: Any
        ) -> Talk:
            host = FakeHost(OURS, SimulatedBucket(), tmp_path, replace(SETTINGS, sync=sync))
            stack.push_async_callback(host.stop)
            if accepts:
                host.accepts = PeerRecord(THEIRS.device_id, "peer", share=tuple(share), **rights)
            transport = new_transport(OURS, lambda _: session, dialed=False)
            session, peer = Session(host, transport), Peer()
            await stack.enter_async_context(connected(transport, peer.transport))
            if accepts:
                await peer.hear(events.ClusterConfigReceived)
            return Talk(host, session, peer)

        yield opened


Connect = Callable[..., Awaitable[Talk]]


async def test_a_peer_and_its_folder(connect: Connect) -> None:
    talk = await connect()
    hello = await talk.peer.hear(events.HelloReceived)
    assert (hello.device_name, hello.client_name) == ("gateway", "untrusted-s3")
    first = await talk.peer.hear(events.ClusterConfigReceived)
    assert first.folders == ()
    await talk.shared()
    second = await talk.peer.hear(events.ClusterConfigReceived, 2)
    (folder,) = second.folders
    assert (folder.id, folder.type) == ("f", pb.RECEIVE_ENCRYPTED)
    tokens = {bytes(device.id): device.encryption_password_token for device in folder.devices}
    assert tokens == {OURS.device_id.raw: TOKEN, THEIRS.device_id.raw: b""}
    assert talk.session.device_id == THEIRS.device_id
    assert talk.host.refusals == {}


async def test_a_device_that_is_not_accepted_hears_nothing_but_hello(connect: Connect) -> None:
    talk = await connect(accepts=False)
    talk.peer.polite = True
    await talk.peer.end()
    assert [type(event) for event in talk.peer.heard] == [events.HelloReceived]
    assert talk.host.ends == [None]


async def test_we_do_not_talk_with_ourselves(connect: Connect, tmp_path: Path) -> None:
    host = FakeHost(OURS, SimulatedBucket(), tmp_path / "other")
    transport = new_transport(OURS, lambda transport: Session(host, transport), dialed=False)
    mirror = Recorder(OURS, dialed=True)
    async with connected(transport, mirror.transport):
        await until(lambda: bool(host.ends))
    assert "ourselves" in str(host.ends[0])


async def test_files_go_to_the_store_and_come_back(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    info = file("a", sizes=(2000, 3000), sequence=1)
    await talk.stored(info, directory("d", sequence=2), deleted("gone", sequence=3))
    assert [request.offset for request in talk.peer.all(events.RequestReceived)] == [0, 2000]
    (key,) = [key for key in talk.host.bucket.store.objects if "/objects/" in key]
    body = b"".join(block_data(block.hash, block.size) for block in info.message.blocks)
    assert talk.host.bucket.store.body(key) == body + encode_trailer(info)

    talk.peer.request(info, 1)
    answer = await talk.answer_to()
    assert (bytes(answer.data), answer.code) == (body[2000:], pb.NO_ERROR)
    assert talk.folder.handled(THEIRS.device_id) == IndexState(THEIR_INDEX, 3)


async def test_our_index_goes_out_with_our_sequence_numbers(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    await talk.stored(file("a", sequence=70), directory("d", sequence=80))
    seen: dict[str, int] = {}
    await until(lambda: len(seen) == 2 or bool(seen.update(announced(talk.peer))))
    assert sorted(seen.values()) == [1, 2]
    await talk.stored(file("a", 2, sequence=90))
    await until(lambda: announced(talk.peer).get(encrypted_name("a")) == 3)
    indexes = talk.peer.all(events.IndexReceived)
    assert [index.update for index in indexes] == [False] + [True] * (len(indexes) - 1)
    assert all(later.prev_sequence == earlier.last_sequence for earlier, later in itertools.pairwise(indexes))


def announced(peer: Peer) -> dict[str, int]:
    infos = [pb.FileInfo.FromString(raw) for index in peer.all(events.IndexReceived) for raw in index.files]
    return {info.name: info.sequence for info in infos}


@pytest.mark.parametrize(
    ("known", "sent"),
    [
        (IndexState(), {1, 2, 3}),
        (IndexState(0x1234, 1), {2, 3}),
        (IndexState(0x1234, 2), {3}),
        (IndexState(0x1234, 9), {1, 2, 3}),
        (IndexState(0x9999, 2), {1, 2, 3}),
    ],
)
async def test_a_peer_gets_what_it_lacks_of_our_index(known: IndexState, sent: set[int], connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    await talk.stored(*(directory(number, sequence=number) for number in (1, 2, 3)))
    await until(lambda: set(announced(talk.peer).values()) == {1, 2, 3})
    talk.peer.heard.clear()
    talk.peer.share(offered(known=known))
    await until(lambda: set(announced(talk.peer).values()) >= sent)
    assert set(announced(talk.peer).values()) == sent
    (index,) = talk.peer.all(events.IndexReceived)
    assert index.update == (len(sent) < 3)


async def test_plaintext_drops_the_folder_and_stores_nothing(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    talk.peer.index(directory("fine", sequence=1).raw, plaintext("secret.txt", sequence=2))
    await until(lambda: "f" in talk.host.refusals)
    assert "not encrypted" in talk.host.refusals["f"]
    assert talk.session.shared_folders == []
    talk.peer.index(directory("later", sequence=3).raw, update=True)
    talk.peer.share()
    await talk.peer.hear(events.ClusterConfigReceived, 2)
    assert talk.folder.pending_totals == (0, 0)
    assert talk.folder.position == 0
    assert not talk.host.bucket.store.objects
    assert talk.host.ends == [], "the connection goes on"


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        (offered(token=b""), "without an encryption password"),
        (offered(on_peer=TOKEN), "impossible"),
        (pb.Folder(id="f", devices=[pb.Device(id=THEIRS.device_id.raw)]), ""),
    ],
    ids=["no password", "both tokens", "not shared with us"],
)
async def test_a_folder_that_cannot_be_taken(folder: pb.Folder, reason: str, connect: Connect) -> None:
    talk = await connect()
    talk.peer.share(folder)
    await until(lambda: "f" in talk.host.refusals)
    assert reason in talk.host.refusals["f"]
    talk.peer.index(directory("a", sequence=1).raw)
    talk.peer.request(file("a"))
    assert (await talk.answer_to()).code == pb.NO_SUCH_FILE
    assert talk.host.folders == {}
    assert not talk.host.bucket.calls


async def test_another_password_touches_nothing(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    await talk.stored(directory("a", sequence=1))
    talk.peer.share(offered(token=TOKEN[::-1]))
    await until(lambda: "f" in talk.host.refusals)
    assert "another password" in talk.host.refusals["f"]
    assert talk.session.shared_folders == []
    assert talk.folder.position == 1
    talk.peer.share(offered())
    await until(lambda: talk.session.shared_folders == ["f"])
    assert talk.host.refusals == {}


async def test_a_device_that_may_only_read(connect: Connect, tmp_path: Path) -> None:
    """It gets the index and the blocks, and nothing of its own index is taken, kept or asked for again."""
    talk = await connect(read_only=True)
    folder = await talk.host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    stored = file("stored", sizes=(2000,), sequence=1)
    writer = ScriptedDevice(5)
    writer.take(stored)
    writer.share(folder)
    await writer.announce(folder, 1)
    await until(lambda: has(folder, stored))
    offer = offered()
    offer.devices[1].max_sequence = 7
    talk.peer.share(offer)
    await until(lambda: talk.session.shared_folders == ["f"])
    answer = await talk.peer.hear(events.ClusterConfigReceived, 2)
    (entry,) = [device for device in answer.folders[0].devices if bytes(device.id) == THEIRS.device_id.raw]
    assert (entry.index_id, entry.max_sequence) == (THEIR_INDEX, 7), "it need not send what is not taken"

    talk.peer.index(directory("forged", sequence=8).raw, deleted("stored", 9, sequence=9).raw, update=True)
    talk.peer.index(plaintext("plain", sequence=10), update=True)
    talk.peer.request(stored)
    assert (await talk.answer_to()).code == pb.NO_ERROR
    assert announced(talk.peer).keys() == {stored.name}
    assert folder.pending_totals == (0, 0)
    assert (folder.own_index.max_sequence, folder.received(THEIRS.device_id)) == (1, IndexState())
    assert THEIRS.device_id not in folder.sources
    assert not talk.host.ends


async def test_a_device_that_may_only_read_makes_no_folder(connect: Connect) -> None:
    talk = await connect(read_only=True)
    talk.peer.share(offered())
    await until(lambda: "f" in talk.host.refusals)
    assert talk.host.folders == {}
    assert not talk.host.bucket.calls


async def test_what_was_pending_of_a_device_is_dropped_when_it_may_only_read(connect: Connect) -> None:
    talk = await connect(read_only=True)
    folder = await talk.host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    folder.start_index(THEIRS.device_id, IndexState(THEIR_INDEX, 5))
    await folder.take_index(
        THEIRS.device_id, THEIR_INDEX, events.IndexReceived("f", (file("a", sequence=1).raw,), False, 1, 0)
    )
    assert folder.pending_totals[0] == 1
    await talk.shared()
    assert folder.pending_totals == (0, 0)


async def test_an_untrusted_device_that_claims_to_encrypt_is_refused(connect: Connect) -> None:
    talk = await connect(untrusted=True)
    talk.peer.share(offered())
    await until(lambda: "f" in talk.host.refusals)
    assert "claims to encrypt" in talk.host.refusals["f"] and talk.host.folders == {}
    talk.peer.share(offered(token=b"", on_peer=TOKEN))
    await until(lambda: talk.session.shared_folders == ["f"])


@pytest.mark.parametrize(
    ("client", "trusted", "gateway"),
    [("untrusted-s3", False, True), ("untrusted-s3", True, False), ("syncthing", False, False)],
)
async def test_a_gateway_is_known_by_its_hello(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, client: str, trusted: bool, gateway: bool
) -> None:
    added: list[dict[str, bool]] = []
    monkeypatch.setattr(Folder, "add_source", lambda folder, device_id, source, **said: added.append(said))
    talk = await connect()
    assert talk.session.hello is not None
    talk.session.hello = replace(talk.session.hello, client_name=client)
    talk.peer.share(offered() if trusted else offered(token=b"", on_peer=TOKEN))
    await until(lambda: talk.session.shared_folders == ["f"])
    assert added == [{"trusted": trusted, "gateway": gateway}]


async def test_a_device_shares_only_the_folders_that_it_may(connect: Connect) -> None:
    talk = await connect(folders=("g", "h"), share=("f", "g"))
    for folder_id in ("f", "g"):
        await talk.host.open(FolderRecord(folder_id, "", TOKEN))
    talk.peer.share(offered("f"), offered("h"), offered("new"))
    await until(lambda: talk.session.shared_folders == ["h"])
    assert talk.host.refusals.keys() == {"f", "new"}
    assert all("operator" in reason for reason in talk.host.refusals.values())
    assert talk.host.folders.keys() == {"f", "g", "h"}
    answer = await talk.peer.hear(events.ClusterConfigReceived, 2)
    assert [folder.id for folder in answer.folders] == ["g", "h"], "nothing is said of a folder that it may not share"


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_index_that_the_peer_cannot_decrypt(trusted: bool, connect: Connect) -> None:
    """The suspects are the devices whose entries it was sent and did not have. An equal cannot decrypt anything."""
    talk = await connect()
    folder = await talk.host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    honest, equal = ScriptedDevice(5), ScriptedDevice(6)
    for number, one in enumerate((honest, equal, equal)):
        one.take(directory(number))
        folder.start_index(one.device_id, IndexState(one.index_id, one.sequence))
        folder.add_source(one.device_id, one, trusted=one is honest)
        await one.announce(folder, 9)
        await until(lambda number=number: has(folder, directory(number)))  # type: ignore[misc]
    talk.peer.share(
        offered(known=IndexState(0x1234, 1)) if trusted else offered(token=b"", on_peer=TOKEN),
    )
    await until(lambda: talk.session.shared_folders == ["f"])
    reason = "handling index-update for f: siv: authentication failed"
    talk.peer.transport.close(reason)
    await until(lambda: bool(talk.host.ends))
    if not trusted:
        assert talk.host.refused_indexes == {}
    else:
        assert talk.host.refused_indexes == {"f": RefusedIndex(reason, (Suspect(equal.device_id, 2, trusted=False),))}


async def test_one_refused_folder_does_not_touch_the_others(connect: Connect) -> None:
    talk = await connect()
    talk.peer.share(offered("bad", token=b""), offered("f"), offered("paused", paused=True))
    await until(lambda: talk.session.shared_folders == ["f"])
    assert talk.host.refusals.keys() == {"bad"}
    talk.peer.share()
    await until(lambda: talk.session.shared_folders == [])
    assert talk.host.refusals == {}, "a folder that the peer no longer shares is no longer refused"


async def test_an_index_for_a_folder_that_is_not_shared_is_ignored(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    talk.peer.index(directory("a", sequence=1).raw, folder="other")
    talk.peer.index(plaintext("a", sequence=1), folder="other")
    await talk.stored(directory("b", sequence=1))
    assert list(talk.host.folders) == ["f"]
    assert talk.folder.own_index.max_sequence == 1


@pytest.mark.parametrize("sequences", [(1, 1), (2, 1), (0,), (-1,), (5, 6, 6)])
async def test_sequence_numbers_that_do_not_rise_are_taken(sequences: tuple[int, ...], connect: Connect) -> None:
    """Syncthing only logs them."""
    talk = await connect()
    await talk.shared()
    infos = [directory(place, sequence=number) for place, number in enumerate(sequences)]
    talk.peer.index(*(info.raw for info in infos))
    await talk.stored(*infos)
    assert not talk.host.ends


async def test_a_file_info_that_breaks_a_rule_does_not_end_the_connection(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    message = pb.FileInfo.FromString(file("a", sequence=1).raw)
    message.blocks[0].size = 5
    talk.peer.index(message.SerializeToString(), directory("b", sequence=2).raw)
    await talk.stored(directory("b", sequence=2))
    assert not talk.host.ends
    assert len(talk.folder.refused_files) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1},
        {"offset": -2000},
        {"offset": 2000},
        {"size": 1999},
        {"size": 0},
        {"hash": bytes(48)},
        {"name": encrypted_name("other")},
        {"name": encrypted_name("d")},
        {"folder": "other"},
        {"from_temporary": True},
    ],
    ids=lambda changes: "-".join(changes),
)
async def test_a_request_for_what_is_not_there(changes: dict[str, object], connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    info = file("a", sizes=(2000,), sequence=1)
    await talk.stored(info, directory("d", sequence=2))
    gets = talk.host.bucket.count("get")
    talk.peer.request(info, 0, **changes)
    answer = await talk.answer_to()
    assert (answer.code, len(answer.data)) == (pb.NO_SUCH_FILE, 0)
    assert talk.host.bucket.count("get") == gets


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"/abs", b"n\xff\xfe", b"a\0b", b"x" * 70_000])
async def test_requests_that_cannot_be_answered_end_nothing(name: bytes, connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    info = file("a", sizes=(2000,), sequence=1)
    await talk.stored(info)
    body = pb.Request(id=5, folder="f", size=2000).SerializeToString()
    body += b"\x1a" + encode_varint(len(name)) + name
    talk.peer.transport.write(encode_frame(pb.REQUEST, body))
    answer = await talk.answer_to(5)
    assert (answer.code, len(answer.data)) == (pb.NO_SUCH_FILE, 0)
    talk.peer.request(info)
    assert (await talk.answer_to()).code == pb.NO_ERROR


async def test_many_requests_are_answered_within_the_window(connect: Connect) -> None:
    talk = await connect(sync=SyncSettings(request_window=5000))
    await talk.shared()
    info = file("a", sizes=(2000,) * 30, sequence=1)
    await talk.stored(info)
    for number in range(30):
        talk.peer.request(info, number, id=100 + number)
    for number in range(30):
        answer = await talk.answer_to(100 + number)
        assert bytes(answer.data) == block_data(info.message.blocks[number].hash, 2000)


async def asked(talk: Talk) -> asyncio.Task[memoryview]:
    """Let the session request a block of the peer; wait until the request has arrived."""
    block = file("a").message.blocks[0]
    before = len(talk.peer.all(events.RequestReceived))
    task = asyncio.ensure_future(talk.session.request_block("f", encrypted_name("a"), 0, block))
    await until(lambda: len(talk.peer.all(events.RequestReceived)) > before)
    return task


async def test_an_index_for_which_there_is_no_room_is_asked_for_again(connect: Connect) -> None:
    """Meanwhile the connection serves on, and what comes later is not taken: it would leave a gap."""
    room = 8000
    talk = await connect(sync=replace(SYNC, pending_disk=room, index_room_interval=0.05))
    talk.host.memory.pending.capacity = room
    await talk.shared()
    infos = [file(number, sizes=(2000,), sequence=number + 1) for number in range(40)]
    go_on = asyncio.Event()

    async def answer(request: events.RequestReceived) -> tuple[bytes, int]:
        await go_on.wait()
        return await right_answer(request)

    talk.peer.answers = answer
    for start in range(0, 40, 5):
        talk.peer.index(*(info.raw for info in infos[start : start + 5]), update=True)
    await until(lambda: bool(talk.folder.held_back))
    talk.host.memory.pending.closed = True  # however long the answer takes, no room comes before it
    talk.peer.request(infos[0])
    assert (await talk.answer_to()).code == pb.NO_SUCH_FILE
    talk.host.memory.pending.closed = False
    known = talk.folder.received(THEIRS.device_id).max_sequence
    assert 0 < known < 40 and known % 5 == 0
    go_on.set()
    await until(lambda: bool(talk.host.ends))
    assert [event.reason for event in talk.peer.all(events.CloseReceived)] == ["the index is asked for again"]
    assert talk.folder.received(THEIRS.device_id).max_sequence == known
    assert not talk.folder.held_back


async def test_requests_fail_when_the_connection_ends(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    task = await asked(talk)
    talk.peer.transport.close("bye")
    with pytest.raises(BlockUnavailable, match="gone"):
        await task
    with pytest.raises(BlockUnavailable, match="gone"):
        await talk.session.request_block("f", encrypted_name("a"), 0, file("a").message.blocks[0])
    assert talk.session.requests_under_way == 0
    assert not talk.host.memory.requested.usage()
    assert talk.folder.sources == {}
    assert talk.session.shared_folders == []


@pytest.mark.parametrize("polite", [False, True])
async def test_a_session_that_the_gateway_ends(polite: bool, connect: Connect) -> None:
    """Its end is noted once, and it leaves nothing behind."""
    talk = await connect()
    await talk.shared()
    task = await asked(talk)
    if polite:
        talk.session.say_close("shutting down")
        await talk.peer.hear(events.CloseReceived)
        talk.peer.transport.close("bye")
    else:
        talk.session.end("shutting down")
    await until(lambda: bool(talk.host.ends))
    with pytest.raises(BlockUnavailable, match="gone"):
        await task
    assert len(talk.host.ends) == 1
    assert talk.folder.sources == {}
    for account in (talk.host.memory.messages, talk.host.memory.requested, talk.host.memory.blocks_out):
        await until(lambda account=account: not account.usage())  # type: ignore[misc]


async def test_the_peers_reason_to_close_is_told(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    talk.peer.transport.close("replaced by another")
    await until(lambda: bool(talk.host.ends))
    assert "replaced by another" in str(talk.host.ends[0])


async def test_store_trouble_ends_the_session_and_refuses_nothing(connect: Connect) -> None:
    talk = await connect()
    talk.host.store_error = StoreUnreachable("the store is away")
    talk.peer.share(offered())
    await until(lambda: bool(talk.host.ends))
    assert isinstance(talk.host.ends[0], StoreUnreachable)
    assert talk.host.refusals == {}


async def test_a_folder_that_the_operator_offers(connect: Connect) -> None:
    talk = await connect(share=["f", "unknown", "later"])
    await talk.host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    talk.peer.share()
    config = await talk.peer.hear(events.ClusterConfigReceived, 2)
    assert [folder.id for folder in config.folders] == ["f"]
    assert talk.session.shared_folders == []
    await talk.host.open(FolderRecord("later", "Label", TOKEN, 0x1234))
    talk.session.folder_opened()
    config = await talk.peer.hear(events.ClusterConfigReceived, 3)
    assert [folder.id for folder in config.folders] == ["f", "later"]
    # The peer adds the folder, which it cannot tell us before it knows the token.
    talk.peer.share()
    config = await talk.peer.hear(events.ClusterConfigReceived, 4)
    assert [folder.id for folder in config.folders] == ["f", "later"]


async def test_a_folder_with_another_password_is_not_offered(connect: Connect) -> None:
    """A Syncthing would close the connection, which all other folders use as well."""
    talk = await connect(share=["f", "g"])
    await talk.host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    await talk.host.open(FolderRecord("g", "Label", TOKEN, 0x1234))
    talk.peer.share(offered("f", token=TOKEN[::-1]))
    configs = [await talk.peer.hear(events.ClusterConfigReceived, count) for count in (1, 2)]
    assert [[folder.id for folder in config.folders] for config in configs] == [[], ["g"]]


async def test_a_peer_that_sends_a_new_index(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    talk.peer.index(*(file(number, sequence=number).raw for number in (1, 2, 3)))
    await until(lambda: talk.folder.pending_totals[0] == 3)
    talk.peer.index(file(3, 2, sequence=1).raw)
    await until(lambda: talk.folder.pending_totals[0] == 1)
    assert talk.folder.received(THEIRS.device_id) == IndexState(THEIR_INDEX, 1)


async def test_invalid_entries_are_never_pulled(connect: Connect) -> None:
    talk = await connect()
    await talk.shared()
    invalid = pb.FileInfo.FromString(file("a", sequence=1).raw)
    invalid.invalid = True
    talk.peer.index(invalid.SerializeToString(), directory("b", sequence=2).raw, update=True)
    await until(lambda: talk.folder.own_index.max_sequence == 1)
    assert talk.folder.entry(encrypted_name("a")) is None
    assert talk.peer.all(events.RequestReceived) == []
    assert talk.folder.handled(THEIRS.device_id) == IndexState(THEIR_INDEX, 2)


async def test_a_flood_of_messages_is_held_back(connect: Connect) -> None:
    talk = await connect(sync=SyncSettings(queued_message_memory=4000))
    await talk.shared()
    pauses = []
    pause_reading = talk.session.transport.pause_reading

    def counted() -> None:
        pauses.append(1)
        pause_reading()

    talk.session.transport.pause_reading = counted  # type: ignore[method-assign]
    for number in range(1, 200):
        talk.peer.index(directory(number, sequence=number).raw, update=True)
    await until(lambda: talk.folder.own_index.max_sequence == 199)
    assert pauses, "reading stopped for a while"


async def test_two_gateways_say_only_what_is_new(tmp_path: Path) -> None:
    """Each answers the other's cluster config. This must end, with the folder shared."""
    hosts, transports, sent = [], [], [0, 0]
    sessions: list[Session] = []
    identities = (OURS, THEIRS)
    for number, identity in enumerate(identities):
        host = FakeHost(identity, SimulatedBucket(), tmp_path / str(number))
        other = identities[1 - number]
        host.accepts = PeerRecord(other.device_id, "gateway", share=("f",))
        await host.open(FolderRecord("f", "Label", TOKEN, 0x1000 + number))
        transport = new_transport(identity, lambda _, number=number: sessions[number], dialed=number == 1)  # type: ignore[misc]
        count_cluster_configs(transport, number, sent)
        hosts.append(host)
        transports.append(transport)
        sessions.append(Session(host, transport))
    try:
        async with connected(*transports):
            await until(lambda: all(session.shared_folders == ["f"] for session in sessions))
            before = list(sent)
            await give_a_chance()
            assert sent == before
            assert max(sent) <= 3
    finally:
        for host in hosts:
            await host.stop()


def count_cluster_configs(transport: BEPTransport, number: int, sent: list[int]) -> None:
    send = transport.bep.cluster_config

    def counted(folders: Sequence[pb.Folder], now: float) -> bytes:
        sent[number] += 1
        return send(folders, now)

    transport.bep.cluster_config = counted  # type: ignore[method-assign]


async def test_many_messages_of_one_peer_do_not_hold_up_others(tmp_path: Path) -> None:
    """Between two messages that wait already, everything else gets its turn."""
    host, wire = FakeHost(OURS, SimulatedBucket(), tmp_path), Wire(THEIRS.device_id)
    host.accepts = PeerRecord(THEIRS.device_id, "peer")
    session = Session(host, wire)
    session.secured()
    session.received(events.HelloReceived("peer", "c", "v1", 1))
    request = events.RequestReceived(1, "f", "name", 0, 2000, b"", False)
    for _ in range(100):
        session.received(request)
    at_each_turn: list[int] = []

    async def other() -> None:
        while host.memory.messages.used:
            at_each_turn.append(host.memory.messages.used)
            await asyncio.sleep(0)

    await other()
    assert len(set(at_each_turn)) > 50
    session.end("the test is over")
    await host.stop()


@virtual_time
async def test_a_device_that_shares_again_and_again_is_slowed(tmp_path: Path) -> None:
    """Each cluster config with another index id shares the folder again: work, and a line in the log."""
    host, wire = FakeHost(OURS, SimulatedBucket(), tmp_path), Wire(THEIRS.device_id)
    host.accepts = PeerRecord(THEIRS.device_id, "peer")
    await host.open(FolderRecord("f", "Label", TOKEN, 0x1234))
    looks: list[str] = []
    find = host.folder_for

    async def folder_for(offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        looks.append(offer.folder_id)
        return await find(offer, by, create=create)

    host.folder_for = folder_for  # type: ignore[method-assign]
    session = Session(host, wire)
    session.secured()
    session.received(events.HelloReceived("peer", "c", "v1", 1))
    for number in range(1, 3000):
        message = offered()
        message.devices[1].index_id = number
        session.received(events.ClusterConfigReceived((message,)))
    began = asyncio.get_running_loop().time()
    await until(lambda: len(looks) >= SYNC.share_burst // 2)
    assert asyncio.get_running_loop().time() - began < 1.0
    await asyncio.sleep(100.0)
    assert len(looks) <= (SYNC.share_burst + 101 * SYNC.share_rate) / 2 + 1
    session.end("the test is over")
    await host.stop()
