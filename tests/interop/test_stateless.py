"""The bucket is enough for containers that move, lose their state, have no volume, or lose even their identity."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, fetched_folder, share_folder, stored_objects
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, random_file
from untrusted_s3.identity.files import load

pytestmark = pytest.mark.interop
# The place of the identity makes no difference to Syncthing; test_restart.py uses both versions.
one_version = pytest.mark.parametrize("syncthing_version", ["1.29.5"], indirect=True)

FOLDER = "kept"
FILES = 20
PASSPHRASE = "a passphrase of some length"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Return a folder with small files and one of several parts."""
    root = tmp_path / "original"
    for number in range(FILES - 1):
        random_file(root / f"directory {number % 3}" / f"{number}", 3000 * number, seed=number)
    random_file(root / "large", 9 << 20, seed=9)
    return root


@pytest.fixture
def first(syncthing_binary: Path, tmp_path: Path) -> Iterator[Syncthing]:
    """Run a trusted device."""
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as running:
        yield running


def assert_nothing_moves_but_a_change(first: Syncthing, gateway: Gateway, original: Path) -> None:
    """Check that a gateway that was just started receives only the entry that changes, and its one block."""
    first.wait_connected(gateway.device_id)
    before, objects = gateway.folder(FOLDER), stored_objects(gateway, FOLDER)
    # This change arrives after anything that would be sent again.
    random_file(original / "changing", 5000, seed=gateway.http_port)
    first.scan(FOLDER)
    gateway.wait_folder(FOLDER, sequence=before["sequence"] + 1)
    first.wait_completion(gateway.device_id, FOLDER)
    counted = {name: gateway.counter(name) for name in ("index_entries_received", "blocks_received", "objects_written")}
    assert counted == {"index_entries_received": 1, "blocks_received": 1, "objects_written": 1}
    assert len(stored_objects(gateway, FOLDER)) == len(objects) + 1


@one_version
def test_a_container_that_moves(
    s3_server: S3Server, bucket_prefix: str, first: Syncthing, original: Path, tmp_path: Path
) -> None:
    """Start it without state, at another address each time, and with the identity from another place."""
    random_file(original / "changing", 5000, seed=0)
    with Gateway(tmp_path / "folder", s3_server, bucket_prefix) as gateway:
        share_folder(first, gateway, FOLDER, original)
        first.wait_completion(gateway.device_id, FOLDER)
        status = gateway.wait_folder(FOLDER, files=FILES + 1)
    identity = load(gateway.home / "identity")
    secrets = (gateway.home / "identity").rename(tmp_path / "secrets")
    files = [f"--identity-cert={secrets / 'cert.pem'}", f"--identity-key={secrets / 'key.pem'}"]
    texts = {
        "UNTRUSTED_S3_IDENTITY_CERT_PEM": identity.certificate_pem.decode(),
        "UNTRUSTED_S3_IDENTITY_KEY_PEM": identity.private_key_pem.decode().replace("\n", "\\n"),
    }
    moves: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        "secret files": (files, {}),
        "environment": ([], texts),
    }
    for name, (options, variables) in moves.items():
        shutil.rmtree(gateway.home)
        home = tmp_path / name
        gateway = Gateway(home, s3_server, bucket_prefix, identity=options, environment=variables)
        assert gateway.device_id == str(identity.device_id)
        with gateway:
            assert gateway.folder(FOLDER) == status  # ready from the bucket, before any peer connects
            first.set_device(gateway.device_id, addresses=[gateway.listen_address])
            assert_nothing_moves_but_a_change(first, gateway, original)
            status = gateway.wait_folder(FOLDER)
        assert {path.name for path in home.iterdir()} == {"state", "gateway.log"}


@one_version
def test_an_identity_in_the_bucket_needs_no_volume(
    s3_server: S3Server, bucket_prefix: str, first: Syncthing, original: Path, tmp_path: Path
) -> None:
    device_ids = []
    random_file(original / "changing", 5000, seed=0)
    for number in range(2):
        home = tmp_path / f"container {number}"
        variables = {"UNTRUSTED_S3_IDENTITY_NAME": "only", "UNTRUSTED_S3_IDENTITY_PASSPHRASE": PASSPHRASE}
        with Gateway(home, s3_server, bucket_prefix, identity=[], environment=variables) as gateway:
            device_ids.append(gateway.device_id)
            if number == 0:
                share_folder(first, gateway, FOLDER, original)
                first.wait_completion(gateway.device_id, FOLDER)
                gateway.wait_folder(FOLDER, files=FILES + 1)
            else:
                first.set_device(gateway.device_id, addresses=[gateway.listen_address])
                assert_nothing_moves_but_a_change(first, gateway, original)
            assert {path.name for path in home.iterdir()} == {"state", "gateway.log"}
        assert PASSPHRASE not in gateway.log_file.read_text()
        shutil.rmtree(home)
    assert device_ids[0] == device_ids[1]


def test_a_lost_identity_loses_nothing(
    s3_server: S3Server, bucket_prefix: str, syncthing_binary: Path, first: Syncthing, original: Path, tmp_path: Path
) -> None:
    with Gateway(tmp_path / "lost", s3_server, bucket_prefix) as lost:
        share_folder(first, lost, FOLDER, original)
        first.wait_completion(lost.device_id, FOLDER)
        before = lost.wait_folder(FOLDER, files=FILES)
        objects = stored_objects(lost, FOLDER)
    shutil.rmtree(lost.home)

    with Gateway(tmp_path / "new", s3_server, bucket_prefix) as gateway:
        assert gateway.device_id != lost.device_id
        assert gateway.folder(FOLDER) == before
        # The operator does nothing here, and replaces the old device with the new one in Syncthing.
        first.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
        first.set_folder(FOLDER, devices=[{"deviceID": gateway.device_id, "encryptionPassword": PASSWORD}])
        first.rest("DELETE", f"config/devices/{lost.device_id}")
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        assert gateway.counter("blocks_received") == gateway.counter("objects_written") == 0
        assert gateway.wait_folder(FOLDER) == before
        # Not even its index is sent again: the log keeps the peer's cursor under the peer's device ID.
        assert_nothing_moves_but_a_change(first, gateway, original)
        assert objects.items() < stored_objects(gateway, FOLDER).items()
        first.stop()
        copy = tmp_path / "copy"
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, FILES + 1):
            assert_same_tree(original, copy)
