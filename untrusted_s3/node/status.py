"""What /api/status says of a gateway; the fields are a contract with users' scripts (docs/http.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from untrusted_s3 import __version__
from untrusted_s3.bep.device_id import DeviceID

if TYPE_CHECKING:
    from untrusted_s3.node.folder import Folder
    from untrusted_s3.node.gateway import Gateway, PeerStatus


@dataclass(slots=True)
class UnknownDevice:
    """A device that tried to connect and is not accepted. `looked_up` is a monotonic time, `last_seen` since 1970."""

    looked_up: float
    name: str = ""
    address: str = ""
    last_seen: float = 0.0


def gateway_status(gateway: Gateway) -> dict[str, Any]:
    """The whole status, ready for JSON."""
    return {
        "device_id": str(gateway.device_id),
        "version": __version__,
        "store": str(gateway.bucket.location),
        "folders": [_folder_status(folder) for _, folder in sorted(gateway.folders.items())],
        "peers": [_peer_status(device_id, peer) for device_id, peer in sorted(gateway.peers.items())],
        "unknown_devices": [
            _unknown_status(device_id, unknown) for device_id, unknown in gateway.unknown_devices.items()
        ],
    }


def _folder_status(folder: Folder) -> dict[str, Any]:
    totals = folder.state.totals
    pending_files, pending_bytes = folder.pending.totals
    error = folder.error or folder.puller.error
    return {
        "id": folder.record.folder_id,
        "label": folder.record.label,
        "files": totals.files,
        "directories": totals.directories,
        "deleted": totals.deleted,
        "bytes": totals.bytes,
        "sequence": folder.state.sequence,
        "pending_files": pending_files,
        "pending_bytes": pending_bytes,
        "state": "error" if error else "syncing" if folder.syncing else "idle",
        "error": error,
    }


def _peer_status(device_id: DeviceID, peer: PeerStatus) -> dict[str, Any]:
    session = peer.session
    return {
        "device_id": str(device_id),
        "name": peer.record.name or (session.hello.device_name if session and session.hello else ""),
        "connected": session is not None,
        "address": session.transport.address if session else "",
        "client": peer.client,
        "folders": session.shared_folders if session else [],
        "error": "; ".join(peer.refused.values()) or peer.error,
    }


def _unknown_status(device_id: DeviceID, unknown: UnknownDevice) -> dict[str, Any]:
    return {
        "device_id": str(device_id),
        "name": unknown.name,
        "address": unknown.address,
        "last_seen": datetime.fromtimestamp(unknown.last_seen, UTC).isoformat(timespec="seconds"),
    }
