"""Accepted devices that do what no Syncthing does. Each is dropped with a reason, and others are not affected."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lz4.block
import pytest

from bench.scripted_peer import RawPeer
from tests.connections.loopback import EventType
from tests.file_infos import directory, encrypted_name, file, plaintext
from tests.interop.sharing import fetched_folder, rescan, share_folder, stored_keys
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from tests.waiting import PATIENCE
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.constants import BLOCK_OVERHEAD
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.bep.response import encode_response
from untrusted_s3.errors import TLSFailed
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import ConnectionSettings, Settings, SyncSettings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.units import MIB

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("hostile peers")]

FOLDER = "guarded"
TOKEN = bytes(range(40))
# A device that only gets little of the processor must not look like one that stalls.
_STALL = 5.0
_BLOCK = MIB + BLOCK_OVERHEAD


class Peer(RawPeer):
    """An accepted device that may do anything."""

    def __init__(self, gateway: Gateway, identity: Identity) -> None:
        super().__init__(gateway, identity)
        self.gateway, self.device_id = gateway, identity.device_id
        self.answer: Callable[[events.RequestReceived], tuple[bytes, int]] | None = None
        self._answered = 0
        self.wait_accepted()

    def share(self, folder: str) -> None:
        """Share a folder as a trusted device does, and wait until the gateway has it."""
        self.send(encode_frame(pb.CLUSTER_CONFIG, self.cluster_config(folder).SerializeToString()))
        while not any(
            folder in [one.id for one in config.folders] for config in self.all(events.ClusterConfigReceived)
        ):
            assert self._exchange()

    def cluster_config(self, folder: str) -> pb.ClusterConfig:
        own = pb.Device(id=DeviceID.parse(self.gateway.device_id).raw, encryption_password_token=TOKEN)
        theirs = pb.Device(id=self.device_id.raw, index_id=1, max_sequence=1)
        return pb.ClusterConfig(folders=[pb.Folder(id=folder, devices=[own, theirs])])

    def announce(self, folder: str, *raw: bytes) -> None:
        index = pb.Index(folder=folder, files=raw)
        self.send(encode_frame(pb.INDEX, index.SerializeToString()))

    def request(self, folder: str, info: FileInfo, number: int, request_id: int) -> None:
        block = info.message.blocks[number]
        request = pb.Request(
            id=request_id, folder=folder, name=info.name, offset=block.offset, size=block.size, hash=block.hash
        )
        self.send(encode_frame(pb.REQUEST, request.SerializeToString()))

    def all(self, kind: type[EventType]) -> list[EventType]:
        return [event for event in self._events if isinstance(event, kind)]

    def error(self) -> str:
        """Return the error that the status shows for this device."""
        return self.gateway.peer(str(self.device_id)).get("error") or ""

    def pump(self) -> None:
        """Receive for a moment, and answer requests."""
        self.receive_for(0.02)
        requests = self.all(events.RequestReceived)
        for request in requests[self._answered :]:
            if self.answer is not None:
                data, code = self.answer(request)
                self.send(b"".join(encode_response(request.id, data, code)))
        self._answered = len(requests)


def pump_until(condition: Callable[[], bool], *peers: Peer) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        for peer in peers:
            peer.pump()


@contextlib.contextmanager
def reading(*peers: Peer) -> Iterator[None]:
    """Let peers receive all the time, each in a thread."""
    enough = threading.Event()

    def read(peer: Peer) -> None:
        while not enough.is_set():
            peer.pump()

    with ThreadPoolExecutor(len(peers)) as threads:
        running = [threads.submit(read, peer) for peer in peers]
        try:
            yield
        finally:
            enough.set()
        for one in running:
            one.result()


@pytest.fixture(scope="module")
def gateway(seaweedfs: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run one gateway for all tests of this module, with little memory and short timeouts."""
    home, prefix = tmp_path_factory.mktemp("gateway"), f"test-{uuid.uuid4().hex}"
    patience = Settings(
        connections=ConnectionSettings(stall_timeout=_STALL),
        sync=SyncSettings(pull_retry_interval=0.2, index_rate=16.0 * MIB),
    )
    with Gateway(home, seaweedfs, prefix, options=["--buffer-memory", "64"], settings=patience) as gateway:
        yield gateway


@pytest.fixture(scope="module", autouse=True)
def bystander(
    gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Syncthing]:
    """Run a real device with a folder that the gateway has in full, and still has at the end."""
    binary, home = syncthing_binaries["1.29.5"], tmp_path_factory.mktemp("bystander")
    build_awkward_tree(home / "original")
    with Syncthing(binary, home / "home", "bystander") as device:
        share_folder(device, gateway, FOLDER, home / "original")
        device.wait_connected(gateway.device_id)
        device.wait_completion(gateway.device_id, FOLDER)
        since = gateway.peer(device.device_id)["address"]
        yield device
        assert gateway.peer(device.device_id)["address"] == since, "the same connection all the time"
        random_file(home / "original" / "one more", 5000, seed=1)
        rescan(device, gateway, FOLDER)
    files = count_files(home / "original")
    with fetched_folder(binary, home / "second", gateway, FOLDER, home / "copy", files):
        assert_same_tree(home / "original", home / "copy")


@pytest.fixture(scope="module")
def identities(gateway: Gateway) -> list[Identity]:
    """Return the identities of accepted devices."""
    identities = [generate() for _ in range(4)]
    for identity in identities:
        gateway.add_peer(str(identity.device_id))
    return identities


@pytest.fixture
def connect(gateway: Gateway, identities: Sequence[Identity]) -> Iterator[Callable[[int], Peer]]:
    with contextlib.ExitStack() as peers:

        def connected(number: int) -> Peer:
            peer = Peer(gateway, identities[number])
            peers.callback(peer.vanish)
            return peer

        yield connected


Connect = Callable[[int], Peer]


def bad(**changes: object) -> bytes:
    """Return a file info of two blocks with changes: fields of the message, or block_FIELD of its second block."""
    message = pb.FileInfo()
    message.CopyFrom(file("a", sizes=(2000, 3000), sequence=1).message)
    for name, value in changes.items():
        target = message.blocks[1] if name.startswith("block_") else message
        setattr(target, name.removeprefix("block_"), value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([plaintext("plain", sequence=1)], "not encrypted"),
        ([bad(name="x" * 10_000)], "not encrypted"),
        ([bad() + b"\x82\x01\x00" * 10_000_000], "impossibly small blocks"),
        ([b"not a file info"], "invalid FileInfo"),
        ([b""] * 20_001, "more than 20000 file infos"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_index_that_no_syncthing_sends(
    gateway: Gateway, connect: Connect, bucket_prefix: str, files: list[bytes], reason: str
) -> None:
    peer = connect(0)
    peer.share(bucket_prefix)
    before = gateway.peak_memory()
    peer.announce(bucket_prefix, directory("fine", sequence=1).raw, *files)
    if "not encrypted" in reason:
        gateway.wait_for("the refusal", lambda: reason in peer.error())
    else:
        assert reason in peer.closing_reason()
        gateway.wait_connected(str(peer.device_id), connected=False)
        assert reason in peer.error()
    assert gateway.folder(bucket_prefix)["sequence"] == 0
    assert set(stored_keys(gateway, f"folders/{bucket_prefix}/")) <= {"folder.json", "scrub.json"}
    assert gateway.peak_memory() < before + 150 * MIB


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (bad(name="../" + encrypted_name("a")), "not a clean relative path"),
        (bad(name="/etc/passwd"), "not a clean relative path"),
        (bad(name=encrypted_name("a") + "\0"), "not a clean relative path"),
        (bad(name="x" * 100_000), "100000 characters"),
        (bad(block_offset=1999), "a block at 1999 where 2000 is due"),
        (bad(block_offset=2001), "a block at 2001 where 2000 is due"),
        (bad(block_offset=-2000), "a block at -2000"),
        (bad(block_offset=2**63 - 1), "a block at 9223372036854775807"),
        (bad(block_size=-1), "a block of -1 bytes"),
        (bad(size=4999), "do not add up"),
        (bad(size=2**63 - 1), "do not add up"),
        (bad(size=-(2**63)), "negative size"),
        (bad(encrypted=bytes(17 * MIB)), "over the cap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_info_that_no_syncthing_sends_is_left_out_alone(
    gateway: Gateway, connect: Connect, bucket_prefix: str, raw: bytes, reason: str
) -> None:
    peer = connect(0)
    peer.share(bucket_prefix)
    peer.announce(bucket_prefix, directory("before", sequence=5).raw, raw, directory("after", sequence=2).raw)
    pump_until(lambda: gateway.folder(bucket_prefix)["sequence"] == 2, peer)
    status = gateway.folder(bucket_prefix)
    assert status["refused_files"] == 1
    assert reason in status["refused_examples"][0]["reason"]
    assert status["pending_files"] == 0
    assert gateway.peer(str(peer.device_id))["connected"]


@pytest.mark.parametrize(
    "answer",
    [
        (bytes(2001), pb.NO_ERROR),
        (bytes(1999), pb.NO_ERROR),
        (b"", pb.NO_ERROR),
        (b"", pb.NO_SUCH_FILE),
        (b"", pb.GENERIC),
        (bytes(2000), 4711),
    ],
    ids=["too long", "too short", "empty", "no such file", "generic", "unknown code"],
)
def test_a_block_that_one_does_not_give_comes_from_another(
    gateway: Gateway, connect: Connect, bucket_prefix: str, answer: tuple[bytes, int]
) -> None:
    info = file("a", sizes=(2000,), sequence=1)
    hostile, honest = connect(0), connect(1)
    hostile.answer = lambda request: answer
    honest.answer = lambda request: (b"b" * request.size, pb.NO_ERROR)
    for peer in (hostile, honest):
        peer.share(bucket_prefix)
        # Answers to no request
        for number in range(100):
            peer.send(b"".join(encode_response(number, bytes(2000), pb.NO_ERROR)))
    hostile.announce(bucket_prefix, info.raw)
    pump_until(lambda: bool(hostile.all(events.RequestReceived)), hostile)
    honest.announce(bucket_prefix, info.raw)
    pump_until(lambda: gateway.folder(bucket_prefix)["sequence"] == 1, hostile, honest)
    honest.request(bucket_prefix, info, 0, 5)
    pump_until(lambda: bool(honest.all(events.ResponseReceived)), honest)
    assert bytes(honest.all(events.ResponseReceived)[0].data) == b"b" * 2000


def test_a_message_byte_by_byte(gateway: Gateway, connect: Connect) -> None:
    peer = connect(0)
    message = encode_frame(pb.CLUSTER_CONFIG, bytes(100_000))
    started = time.monotonic()
    with contextlib.suppress(OSError, TLSFailed):
        for position in range(len(message)):
            assert time.monotonic() - started < PATIENCE
            peer.send(message[position : position + 1])
            peer.receive_for(0.1)
            if peer.all(events.CloseReceived):
                break
    assert time.monotonic() - started > _STALL
    gateway.wait_for("the reason", lambda: "comes too slowly" in peer.error())
    assert "comes too slowly" in peer.closing_reason()


def test_one_that_asks_and_does_not_read(gateway: Gateway, connect: Connect, bucket_prefix: str) -> None:
    info = file("a", sizes=(_BLOCK,) * 24, sequence=1)
    hostile, honest = connect(0), connect(1)
    for peer in (hostile, honest):
        peer.answer = lambda request: (request.offset.to_bytes(8, "big") * (request.size // 8), pb.NO_ERROR)
        peer.share(bucket_prefix)
    hostile.announce(bucket_prefix, info.raw)
    pump_until(lambda: gateway.folder(bucket_prefix)["sequence"] == 1, hostile)
    before = gateway.peak_memory()
    with contextlib.suppress(OSError):
        for number in range(1000):
            hostile.request(bucket_prefix, info, number % 24, number)
    for number in range(24):
        honest.request(bucket_prefix, info, number, number)
    pump_until(lambda: len(honest.all(events.ResponseReceived)) == 24, honest)
    for response in honest.all(events.ResponseReceived):
        assert bytes(response.data[:8]) == (response.id * _BLOCK).to_bytes(8, "big")
    gateway.wait_for("the end of one", lambda: "reads too slowly" in hostile.error())
    assert gateway.peer(str(honest.device_id))["connected"]
    assert gateway.peak_memory() < before + 150 * MIB


def test_floods(gateway: Gateway, connect: Connect, bucket_prefix: str) -> None:
    peer = connect(0)
    peer.share(bucket_prefix)
    before = gateway.peak_memory()
    config = encode_frame(pb.CLUSTER_CONFIG, peer.cluster_config(bucket_prefix).SerializeToString())
    request = pb.Request(id=7, folder=bucket_prefix, name=encrypted_name("a"), offset=0, size=2000, hash=bytes(48))
    for _ in range(20):
        peer.send(encode_frame(pb.PING, b"") * 5000 + config * 20)
        peer.send(encode_frame(pb.REQUEST, request.SerializeToString()) * 100)
        peer.pump()
    pump_until(lambda: len(peer.all(events.ResponseReceived)) == 2000, peer)
    assert {response.code for response in peer.all(events.ResponseReceived)} == {pb.NO_SUCH_FILE}
    peer.send(encode_frame(pb.CLOSE, pb.Close(reason="\x1b[2J" + "enough " * 100).SerializeToString()) * 100)
    gateway.wait_for("the reason", lambda: r"closed by the peer: \x1b[2Jenough" in peer.error())
    assert len(peer.error()) < 300
    assert gateway.peak_memory() < before + 64 * MIB


def lz4_frame(kind: int, body: bytes) -> bytes:
    message: bytes = len(body).to_bytes(4, "big") + lz4.block.compress(body, store_size=False)
    header = pb.Header(type=kind, compression=pb.LZ4).SerializeToString()  # type: ignore[arg-type]
    return len(header).to_bytes(2, "big") + header + len(message).to_bytes(4, "big") + message


def test_the_largest_index_messages_of_several_at_once(gateway: Gateway, connect: Connect, bucket_prefix: str) -> None:
    before = gateway.peak_memory()
    peers = [connect(number) for number in range(4)]
    for peer in peers:
        peer.share(bucket_prefix)
    zeros = [directory(number, sequence=number + 1).message for number in range(60)]
    for message in zeros:
        message.encrypted = bytes(MIB - 1000)
    index = pb.Index(folder=bucket_prefix, files=[message.SerializeToString() for message in zeros])
    bomb = lz4_frame(pb.INDEX_UPDATE, index.SerializeToString())
    assert len(bomb) < MIB
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.send(bomb * 2)
        gateway.status()  # it answers while it handles them
    # Peers that do not read would be given up before a busy machine has handled their messages.
    with reading(*peers):
        gateway.wait_for("all of them", lambda: gateway.folder(bucket_prefix)["sequence"] >= 60)
    for peer in peers:
        peer.vanish()
    # Each sends half of a message and stops.
    peers = [connect(number) for number in range(4)]
    for peer in peers:
        with contextlib.suppress(OSError):
            peer.send(encode_frame(pb.CLUSTER_CONFIG, b"") + encode_frame(pb.INDEX, bytes(64 * MIB))[: 50 * MIB])
    gateway.wait_for("one to be dropped", lambda: any("memory is short" in peer.error() for peer in peers))
    # The queue, one message being decoded (twice), entries in work, a checkpoint: 608 to 675 MiB were seen. All
    # messages would be 1 GB.
    assert gateway.peak_memory() < before + 768 * MIB
