"""Folders in cluster configs: what a peer offers and what we answer (BEP specification, "Cluster Config"; Syncthing
v2.1.3 lib/model/model.go, ccCheckEncryption).

Zero knowledge rests on the rules for the encryption token:

- The token on our entry: the peer is trusted and encrypts for us.
- The token on the peer's own entry: the peer holds encrypted data as we do.
- On neither: the peer would send plaintext. Refused.
- On both: no device can both hold encrypted data and encrypt it. Refused.
- Another token than the stored one: another password. Refused; the stored data stay unchanged.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.wire import LENGTH_DELIMITED, fields, parse
from untrusted_s3.errors import FolderRefused, NotEncrypted, OtherPassword, RemoteProtocolError

_FOLDERS, _DEVICES = 1, 16


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far a device's index is known: its id (0 for none) and the highest sequence number."""

    index_id: int = 0
    max_sequence: int = 0


@dataclass(frozen=True, slots=True)
class FolderOffer:
    """A folder that a peer shares with us in a way that we can accept.

    Attributes:
        folder_id: The Syncthing folder ID.
        label: The peer's label for it, perhaps empty.
        token: The encryption password's token.
        paused: Whether the folder is paused on the peer.
        peer: The state of the peer's own index.
        known: How much of our index the peer has.
        trusted: Whether the peer encrypts for us; else it holds encrypted data as we do.
    """

    folder_id: str
    label: str
    token: bytes
    paused: bool
    peer: IndexState
    known: IndexState
    trusted: bool = True


def decode_cluster_config(body: bytes | bytearray) -> tuple[pb.Folder, ...]:
    """Return the folders of a ClusterConfig.

    Folders, devices and fields are counted before any of them is parsed: an empty device has three bytes, and fewer in
    an LZ4 message, but takes a hundred in memory. Raises RemoteProtocolError.
    """
    try:
        _check_counts(body)
    except ValueError as error:
        raise RemoteProtocolError(f"invalid ClusterConfig: {error}") from error
    return tuple(parse(pb.ClusterConfig, body).folders)


def _check_counts(body: bytes | bytearray) -> None:
    most = constants.MAX_CLUSTER_CONFIG_FIELDS
    count = folders = 0
    for number, kind, size, start in fields(body, most):
        count += 1
        if number != _FOLDERS or kind != LENGTH_DELIMITED:
            continue
        folders += 1
        if folders > constants.MAX_FOLDERS:
            raise RemoteProtocolError(f"more than {constants.MAX_FOLDERS} folders in a cluster config are too many")
        for inner, inner_kind, inner_size, inner_start in fields(body, most - count, start, start + size):
            count += 1
            if inner == _DEVICES and inner_kind == LENGTH_DELIMITED:
                count += sum(1 for _ in fields(body, most - count, inner_start, inner_start + inner_size))


def read_offer(folder: pb.Folder, own_id: DeviceID, peer_id: DeviceID) -> FolderOffer:
    """Read one folder of the peer's cluster config. Raises FolderRefused with the reason."""
    folder_id_fits = 0 < len(folder.id.encode()) <= constants.MAX_FOLDER_ID_SIZE
    if not folder_id_fits or len(folder.label) > constants.MAX_FOLDER_LABEL_SIZE:
        raise FolderRefused("its ID is missing, or ID or label are too long")
    devices = {bytes(device.id): device for device in folder.devices}
    own = devices.get(own_id.raw)
    peer = devices.get(peer_id.raw)
    if own is None or peer is None:
        raise FolderRefused("the peer lists this folder without both devices")
    if own.encryption_password_token and peer.encryption_password_token:
        raise FolderRefused("the peer claims both to hold encrypted data and to encrypt it, which is impossible")
    token = own.encryption_password_token or peer.encryption_password_token
    if not token:
        raise NotEncrypted(
            "shared without an encryption password: in Syncthing, edit the folder, open Sharing and set a password "
            "for this device"
        )
    if len(token) > constants.MAX_PASSWORD_TOKEN_SIZE:
        raise FolderRefused(f"its password token of {len(token)} bytes is too long")
    return FolderOffer(
        folder_id=folder.id,
        label=folder.label,
        token=token,
        paused=folder.stop_reason != pb.RUNNING,
        peer=IndexState(peer.index_id, peer.max_sequence),
        known=IndexState(own.index_id, own.max_sequence),
        trusted=bool(own.encryption_password_token),
    )


def check_token(offered: bytes, stored: bytes) -> None:
    """Check that an offered token is the stored one. Raises FolderRefused."""
    if not hmac.compare_digest(offered, stored):
        raise OtherPassword(
            "another password: the device uses another encryption password for this folder than the stored data. "
            "Nothing was touched. If it was mistyped, correct it there: in Syncthing, edit the folder, open Sharing "
            "and set the password for this device again"
        )


def folder_message(
    folder_id: str,
    label: str,
    token: bytes,
    own_id: DeviceID,
    own_index: IndexState,
    peer_id: DeviceID,
    peer_index: IndexState,
    *,
    paused: bool = False,
) -> pb.Folder:
    """Return our side of a shared folder. The token goes on our own entry, never on the peer's.

    A peer shows a `paused` folder as such, and sends and requests nothing of it until the next connection.
    """
    own = pb.Device(
        id=own_id.raw,
        index_id=own_index.index_id,
        max_sequence=own_index.max_sequence,
        encryption_password_token=token,
    )
    peer = pb.Device(id=peer_id.raw, index_id=peer_index.index_id, max_sequence=peer_index.max_sequence)
    stop_reason = pb.PAUSED if paused else pb.RUNNING
    return pb.Folder(id=folder_id, label=label, type=pb.RECEIVE_ENCRYPTED, stop_reason=stop_reason, devices=[own, peer])


def index_start(known: IndexState, own: IndexState) -> int:
    """Return the sequence number after which the peer needs our index; 0 for all of it.

    A peer that knows another index of ours, or claims more of it than there is, gets all of it.
    """
    if known.index_id != own.index_id or known.max_sequence > own.max_sequence:
        return 0
    return max(known.max_sequence, 0)
