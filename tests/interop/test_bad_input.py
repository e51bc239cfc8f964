"""A peer that does something wrong is refused with a reason, and nothing is lost or stored."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.scripted_peer import RawPeer, open_socket
from tests.interop.sharing import fetched_folder, rescan, share_folder, stored_keys
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.store.embedded.server import EmbeddedStore

pytestmark = pytest.mark.interop

FOLDER = "guarded"


@pytest.fixture(scope="module")
def gateway(seaweedfs: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Run one gateway for all tests of this module."""
    with Gateway(tmp_path_factory.mktemp("gateway"), seaweedfs, f"test-{uuid.uuid4().hex}") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def identity(gateway: Gateway) -> Identity:
    """Return the identity of an accepted device."""
    identity = generate()
    gateway.add_peer(str(identity.device_id))
    return identity


@pytest.fixture(scope="module")
def trusted(gateway: Gateway, syncthing_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Syncthing]:
    """Run a device with a folder that the gateway has in full, and still has at the end."""
    home = tmp_path_factory.mktemp("trusted")
    folder = FOLDER + home.name
    build_awkward_tree(home / "original")
    with Syncthing(syncthing_binary, home / "home", "trusted") as device:
        share_folder(device, gateway, folder, home / "original")
        device.wait_connected(gateway.device_id)
        device.wait_completion(gateway.device_id, folder)
        yield device
        # After all tests the data is still there, and more can follow.
        random_file(home / "original" / "one more", 5000, seed=1)
        rescan(device, gateway, folder)
    files = count_files(home / "original")
    with fetched_folder(syncthing_binary, home / "second", gateway, folder, home / "copy", files):
        assert_same_tree(home / "original", home / "copy")


@pytest.fixture
def stranger(trusted: Syncthing, syncthing_binary: Path, tmp_path: Path) -> Iterator[Syncthing]:
    """Run a fresh device that knows the gateway but is not accepted by it."""
    with Syncthing(syncthing_binary, tmp_path / "stranger", "stranger") as device:
        yield device


def test_an_unknown_device_is_refused_until_it_is_added(
    gateway: Gateway, stranger: Syncthing, tmp_path: Path, bucket_prefix: str
) -> None:
    random_file(tmp_path / "folder" / "file", 1000, seed=1)
    stranger.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
    stranger.add_folder(bucket_prefix, tmp_path / "folder", {gateway.device_id: "password"})

    def listed() -> list[dict[str, str]]:
        unknown = gateway.status()["unknown_devices"]
        return [device for device in unknown if device["device_id"] == stranger.device_id]

    (device,) = gateway.wait_for("the stranger", listed)
    assert device["name"] == "stranger"
    assert device["address"].startswith("tcp://127.0.0.1:")
    assert gateway.peer(stranger.device_id) == {}
    assert gateway.folder(bucket_prefix) == {}

    def told() -> bool:
        return any(stranger.device_id in line["accept"] for line in gateway.logged("unknown device"))

    gateway.wait_for("word of how to accept it", told)

    process = gateway.pid
    gateway.command("peers", "add", stranger.device_id)
    stranger.wait_connected(gateway.device_id)
    stranger.wait_completion(gateway.device_id, bucket_prefix)
    gateway.wait_folder(bucket_prefix, files=1)
    assert not listed()
    assert gateway.pid == process


def test_a_folder_without_password_is_refused(
    gateway: Gateway, stranger: Syncthing, tmp_path: Path, bucket_prefix: str
) -> None:
    random_file(tmp_path / "folder" / "secret name", 1000, seed=1)
    gateway.add_peer(stranger.device_id)
    stranger.add_device(gateway.device_id, "gateway", [gateway.listen_address])
    stranger.add_folder(bucket_prefix, tmp_path / "folder", {gateway.device_id: ""})
    stranger.wait_connected(gateway.device_id)
    error = gateway.wait_for("the refusal", lambda: gateway.peer(stranger.device_id).get("error"))
    assert bucket_prefix in error
    assert "without an encryption password" in error
    assert gateway.logged("folder refused", folder=bucket_prefix, device=stranger.device_id)
    assert gateway.peer(stranger.device_id)["connected"], "other folders are fine"
    assert gateway.folder(bucket_prefix) == {}
    assert not stored_keys(gateway, f"folders/{bucket_prefix}/")


def test_another_password_is_refused(gateway: Gateway, trusted: Syncthing, stranger: Syncthing, tmp_path: Path) -> None:
    (folder,) = (folder["id"] for folder in trusted.rest("GET", "config/folders"))
    before, keys = gateway.folder(folder), stored_keys(gateway)
    random_file(tmp_path / "folder" / "file", 1000, seed=1)
    share_folder(stranger, gateway, folder, tmp_path / "folder", "another password")
    error = gateway.wait_for("the refusal", lambda: gateway.peer(stranger.device_id).get("error"))
    assert "another password" in error
    assert gateway.logged("folder refused", folder=folder, device=stranger.device_id)
    rescan(trusted, gateway, folder)
    assert gateway.folder(folder) == before
    # A segment may be added that holds the trusted device's cursor.
    new = {key for key in set(stored_keys(gateway)) - set(keys) if not key.startswith(f"folders/{folder}/log/")}
    assert new <= {f"peers/{stranger.device_id}.json"}


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(500), secrets.token_bytes(3000)]
)
def test_garbage_instead_of_tls(gateway: Gateway, garbage: bytes) -> None:
    with open_socket(gateway) as connection:
        address = "tcp://{}:{}".format(*connection.getsockname())
        connection.sendall(garbage)
        with contextlib.suppress(ConnectionError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    (line,) = gateway.wait_for("the end", lambda: gateway.logged("connection ended", address=address))
    assert line["reason"] != "closed"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (struct.pack(">HI", 0, 500_000_001), "over the cap"),
        (struct.pack(">HI", 0, 0xFFFF_FFFF), "over the cap"),
        (struct.pack(">HI", 0, 17 << 20 | 1), "over the cap"),
        (struct.pack(">H", 0x8000), "over the cap"),
        # LZ4 messages that state more than they can hold
        (b"\x00\x02\x10\x01" + struct.pack(">II", 8, 4_000_000) + bytes(4), "cannot hold"),
        (b"\x00\x02\x10\x01" + struct.pack(">II", 8, 0xFFFF_FFFF) + bytes(4), "over the cap"),
        (b"\x00\x02\x10\x01" + struct.pack(">II", 24, 1000) + secrets.token_bytes(20), "LZ4"),
        (encode_frame(pb.CLUSTER_CONFIG, b"\xff" * 20), "ClusterConfig"),
        (encode_frame(pb.REQUEST, b""), "before the first cluster config"),
    ],
    ids=[
        "frame",
        "frame max",
        "frame of its type",
        "header",
        "lz4 size",
        "lz4 size max",
        "lz4 data",
        "protobuf",
        "order",
    ],
)
def test_a_broken_message_closes_the_connection(
    gateway: Gateway, identity: Identity, message: bytes, reason: str
) -> None:
    before = gateway.peak_memory()
    peer = RawPeer(gateway, identity)
    peer.wait_accepted()
    peer.send(message)
    assert reason in peer.closing_reason()
    gateway.wait_connected(str(identity.device_id), connected=False)
    assert reason in gateway.peer(str(identity.device_id))["error"]
    assert gateway.peak_memory() < before + (64 << 20)


def test_a_peer_that_vanishes_in_the_middle_of_a_message(gateway: Gateway, identity: Identity) -> None:
    peer = RawPeer(gateway, identity)
    peer.wait_accepted()
    peer.send(encode_frame(pb.CLUSTER_CONFIG, b""))
    peer.send(encode_frame(pb.INDEX, bytes(1_000_000))[:500_000])
    peer.vanish()
    assert gateway.wait_connected(str(identity.device_id), connected=False)["error"]


def test_file_infos_that_are_not_encrypted_are_refused(
    gateway: Gateway, identity: Identity, bucket_prefix: str
) -> None:
    own_id, folder = DeviceID.parse(gateway.device_id), bucket_prefix
    token = pb.Device(id=own_id.raw, encryption_password_token=bytes(50))
    devices = [token, pb.Device(id=identity.device_id.raw, index_id=1, max_sequence=1)]
    config = pb.ClusterConfig(folders=[pb.Folder(id=folder, devices=devices)])
    plain = pb.FileInfo(name="plain name", type=pb.FILE, size=0, sequence=1, modified_s=1)
    index = pb.Index(folder=folder, files=[plain.SerializeToString()], last_sequence=1)
    peer = RawPeer(gateway, identity)
    peer.wait_accepted()
    peer.send(encode_frame(pb.CLUSTER_CONFIG, config.SerializeToString()))
    peer.send(encode_frame(pb.INDEX, index.SerializeToString()))
    error = gateway.wait_for("the refusal", lambda: gateway.peer(str(identity.device_id)).get("error"))
    peer.vanish()
    assert folder in error
    assert "not encrypted" in error
    assert set(stored_keys(gateway, f"folders/{folder}/")) <= {"folder.json", "scrub.json"}
    assert gateway.folder(folder)["sequence"] == 0


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_a_port_in_use(
    gateway: Gateway, seaweedfs: EmbeddedStore, bucket_prefix: str, tmp_path: Path, option: str
) -> None:
    second = Gateway(tmp_path / "second", seaweedfs, bucket_prefix)
    if option == "--listen":
        second.listen_address = gateway.listen_address
    else:
        second.http_port = gateway.http_port
    code, output = second.run_to_its_end()
    assert code == 2, output
    port = urlsplit(gateway.listen_address).port if option == "--listen" else gateway.http_port
    assert f"127.0.0.1:{port}" in output
    assert f"choose another with {option}" in output
    assert "Traceback" not in output
