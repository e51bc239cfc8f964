"""Folders in cluster configs: which offers are accepted, and what we answer."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bep.counting import Counting
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.cluster_config import (
    FolderOffer,
    IndexState,
    check_token,
    decode_cluster_config,
    folder_message,
    index_start,
    read_offer,
)
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.wire import encode_varint
from untrusted_s3.errors import FolderRefused, RemoteProtocolError
from untrusted_s3.units import MIB

OWN = DeviceID(b"\x01" * 32)
PEER = DeviceID(b"\x02" * 32)
OTHER = DeviceID(b"\x03" * 32)
TOKEN = bytes(range(25))


def offered(own_token: bytes = b"", peer_token: bytes = b"") -> pb.Folder:
    """A folder as a peer lists it, with the given tokens on our entry and on its own."""
    return pb.Folder(
        id="docs",
        label="Documents",
        devices=[
            pb.Device(id=OTHER.raw, index_id=99, max_sequence=99, encryption_password_token=b"for somebody else"),
            pb.Device(id=PEER.raw, index_id=7, max_sequence=100, encryption_password_token=peer_token),
            pb.Device(id=OWN.raw, index_id=8, max_sequence=50, encryption_password_token=own_token),
        ],
    )


@pytest.mark.parametrize(
    ("own_token", "peer_token"),
    [pytest.param(TOKEN, b"", id="a trusted peer"), pytest.param(b"", TOKEN, id="an untrusted device as we are")],
)
def test_offers_we_can_accept(own_token: bytes, peer_token: bytes) -> None:
    assert read_offer(offered(own_token, peer_token), OWN, PEER) == FolderOffer(
        folder_id="docs",
        label="Documents",
        token=TOKEN,
        paused=False,
        peer=IndexState(index_id=7, max_sequence=100),
        known=IndexState(index_id=8, max_sequence=50),
        trusted=bool(own_token),
    )


@pytest.mark.parametrize(
    "changes", [{"id": ""}, {"id": "f" * 257}, {"label": "f" * 5000}], ids=["no ID", "long ID", "long label"]
)
def test_names_that_nobody_gives(changes: dict[str, str]) -> None:
    folder = offered(TOKEN)
    for name, value in changes.items():
        setattr(folder, name, value)
    with pytest.raises(FolderRefused, match="too long"):
        read_offer(folder, OWN, PEER)


def test_a_token_that_is_none() -> None:
    with pytest.raises(FolderRefused, match="token of 1025 bytes"):
        read_offer(offered(bytes(1025)), OWN, PEER)


def test_token_on_neither_entry_is_plaintext() -> None:
    with pytest.raises(FolderRefused, match="without an encryption password: in Syncthing, edit the folder"):
        read_offer(offered(), OWN, PEER)


@pytest.mark.parametrize("peer_token", [TOKEN, b"another"])
def test_token_on_both_entries_is_impossible(peer_token: bytes) -> None:
    with pytest.raises(FolderRefused, match="impossible"):
        read_offer(offered(TOKEN, peer_token), OWN, PEER)


@pytest.mark.parametrize("missing", [OWN, PEER])
def test_both_devices_must_be_listed(missing: DeviceID) -> None:
    folder = offered(TOKEN)
    for position, device in enumerate(folder.devices):
        if device.id == missing.raw:
            del folder.devices[position]
            break
    with pytest.raises(FolderRefused, match="without both devices"):
        read_offer(folder, OWN, PEER)


def test_the_token_of_a_third_device_does_not_count() -> None:
    folder = offered()
    assert any(device.encryption_password_token for device in folder.devices)
    with pytest.raises(FolderRefused, match="without an encryption password"):
        read_offer(folder, OWN, PEER)


def test_a_paused_folder() -> None:
    folder = offered(TOKEN)
    folder.stop_reason = pb.PAUSED
    assert read_offer(folder, OWN, PEER).paused


def test_unset_index_state_is_zero() -> None:
    folder = pb.Folder(id="f", devices=[pb.Device(id=OWN.raw, encryption_password_token=TOKEN), pb.Device(id=PEER.raw)])
    offer = read_offer(folder, OWN, PEER)
    assert offer.peer == offer.known == IndexState(0, 0)


# Tokens


def test_the_stored_token_is_accepted() -> None:
    check_token(TOKEN, bytes(TOKEN))


@pytest.mark.parametrize("changed", [TOKEN[:-1], TOKEN + b"\0", b"", bytes(25), TOKEN[::-1]])
def test_a_changed_password_is_refused(changed: bytes) -> None:
    with pytest.raises(FolderRefused, match=r"another password.*Nothing was touched"):
        check_token(changed, TOKEN)


# Our side

index_states = st.builds(IndexState, st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))


def test_our_folder_message() -> None:
    folder = folder_message("docs", "Documents", TOKEN, OWN, IndexState(8, 50), PEER, IndexState(7, 100))
    assert folder == pb.Folder(
        id="docs",
        label="Documents",
        type=pb.RECEIVE_ENCRYPTED,
        stop_reason=pb.RUNNING,
        devices=[
            pb.Device(id=OWN.raw, index_id=8, max_sequence=50, encryption_password_token=TOKEN),
            pb.Device(id=PEER.raw, index_id=7, max_sequence=100),
        ],
    )


@given(own=index_states, peer=index_states)
def test_another_untrusted_device_can_read_our_folder_message(own: IndexState, peer: IndexState) -> None:
    folder = folder_message("f", "l", TOKEN, OWN, own, PEER, peer)
    assert read_offer(pb.Folder.FromString(folder.SerializeToString()), own_id=PEER, peer_id=OWN) == FolderOffer(
        folder_id="f", label="l", token=TOKEN, paused=False, peer=own, known=peer, trusted=False
    )


@pytest.mark.parametrize(
    ("known", "own", "start"),
    [
        pytest.param(IndexState(0, 0), IndexState(5, 10), 0, id="knows nothing"),
        pytest.param(IndexState(5, 0), IndexState(5, 10), 0, id="knows the index id only"),
        pytest.param(IndexState(5, 4), IndexState(5, 10), 4, id="knows a part"),
        pytest.param(IndexState(5, 10), IndexState(5, 10), 10, id="knows all"),
        pytest.param(IndexState(5, 11), IndexState(5, 10), 0, id="claims more than there is"),
        pytest.param(IndexState(6, 4), IndexState(5, 10), 0, id="knows another index"),
        pytest.param(IndexState(0, 4), IndexState(5, 10), 0, id="a sequence without index id"),
        pytest.param(IndexState(5, -1), IndexState(5, 10), 0, id="a negative sequence"),
        pytest.param(IndexState(5, 0), IndexState(5, 0), 0, id="an empty index"),
    ],
)
def test_index_start(known: IndexState, own: IndexState, start: int) -> None:
    assert index_start(known, own) == start


@given(known=st.builds(IndexState, st.integers(0, 2), st.integers(-(2**63), 2**63 - 1)), own=index_states)
def test_index_start_never_skips_what_the_peer_lacks(known: IndexState, own: IndexState) -> None:
    start = index_start(known, own)
    assert 0 <= start <= own.max_sequence
    assert start == 0 or (start == known.max_sequence and known.index_id == own.index_id)


# Counting before parsing


def test_folders_devices_and_fields_are_decoded() -> None:
    config = pb.ClusterConfig(folders=[offered() for _ in range(3)], secondary=True)
    assert decode_cluster_config(config.SerializeToString()) == tuple(config.folders)


CONFIG = pb.ClusterConfig(folders=[offered(TOKEN)]).SerializeToString()


@given(st.binary(max_size=200) | st.binary(max_size=20).map(lambda end: CONFIG + end))
def test_a_config_is_decoded_as_protobuf_does_or_refused(body: bytes) -> None:
    try:
        folders = decode_cluster_config(body)
    except RemoteProtocolError:
        return
    assert folders == tuple(pb.ClusterConfig.FromString(body).folders)


def nested(body: bytes, field: int) -> bytes:
    return encode_varint(field << 3 | 2) + encode_varint(len(body)) + body


@pytest.mark.parametrize(
    "body",
    [
        nested(b"", 1) * 300_000,
        nested(nested(b"", 16) * 300_000, 1),
        nested(nested(b"", 16) * 2_000, 1) * 500,
        nested(nested(nested(b"", 3) * 300_000, 16), 1),
        nested(nested(nested(b"", 3) * 500, 16) * 3, 1) * 900,
        nested(b"\x38\x01" * 300_000, 1),
        b"\x10\x01" * 300_000,
        nested(nested(b"\x08\x01" * 300_000, 77), 1) + nested(b"", 1) * 1_000,
    ],
    ids=[
        "folders",
        "devices",
        "devices of many folders",
        "addresses",
        "addresses of many devices",
        "folder",
        "config",
        "unknown",
    ],
)
def test_millions_of_elements_are_counted_and_not_parsed(body: bytes) -> None:
    counting = Counting(body)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode_cluster_config(counting)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert counting.steps <= 8 * constants.MAX_CLUSTER_CONFIG_FIELDS
