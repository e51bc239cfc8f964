"""The JSON of /api/status. Its fields are a contract with users' scripts (docs/http.md)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.gateway.closed_folders import ClosedFolder
from untrusted_s3.gateway.peers import Peer, UnknownDevice
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.structured_logging import redact_text
from untrusted_s3.supervisor import TaskStatus
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.failures import Failure
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit
from untrusted_s3.sync.refused_index import RefusedIndex

Result = TypeVar("Result")

_REFUSALS_SHOWN = 20
_TEXT_SHOWN = 200  # characters of what a device chooses, such as its name
_NAME_SHOWN = 1000  # characters of an encrypted name
_REFUSED_SHOWN = 10
_MISSING_SHOWN = 20
_LOST_SHOWN = 20
_ALLOWED_SHOWN = 100
_DISSENTING_SHOWN = 20
_CONNECTED_SHOWN = 100

# How many numbers are gathered before others get their turn: about a millisecond.
_AT_ONCE = 500

# A computation in steps, each of which yields about how many numbers it has gathered.
Steps = Generator[int, None, Result]

# What a folder is shown with that cannot be read.
_NO_DISSENTS: Mapping[str, Any] = {
    "conflicting_files": 0,
    "disputed_files": 0,
    "dissents": 0,
    "dissenting_devices": 0,
    "dissents_of": [],
}


def at_once(steps: Steps[Result]) -> Result:
    """Return the result of all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def in_steps(steps: Steps[Result]) -> Result:
    """Return the result of all steps. Others get their turns between them."""
    gathered = 0
    while True:
        try:
            gathered += next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        if gathered >= _AT_ONCE:
            gathered = 0
            await asyncio.sleep(0)


def folder_status(
    folder: Folder,
    task_error: str | None = None,
    lost: Sequence[str] = (),
    name_of: Callable[[DeviceID], str] = lambda device_id: "",
) -> dict[str, Any]:
    """Return the JSON of a folder.

    `task_error` says why one of its background tasks fails, `lost` what its log has lost and nobody here knows.
    `name_of` returns the name of a device.
    """
    totals = folder.totals
    pending_files, pending_bytes = folder.pending_totals
    reached = folder.limits_reached
    error = folder.error or task_error or "; ".join(map(str, reached)) or None
    failing_files, failure = folder.failing
    return {
        "id": folder.record.folder_id,
        "label": folder.record.label,
        "files": totals.files,
        "directories": totals.directories,
        "deleted": totals.deleted,
        "bytes": totals.bytes,
        "sequence": folder.own_index.max_sequence,
        "remote_sequence": {
            str(device_id): folder.received(device_id).max_sequence
            for device_id in itertools.islice(folder.sources, _CONNECTED_SHOWN)
        },
        "pending_files": pending_files,
        "pending_bytes": pending_bytes,
        "state": "error" if error else "syncing" if folder.syncing else "idle",
        "error": error,
        "failing_files": failing_files,
        "failing_example": _failing_example(failure) if failure is not None else None,
        "refused_files": len(folder.refused_files),
        "refused_examples": [
            {"device_id": str(device_id), "name": refused.name[:_NAME_SHOWN], "reason": refused.reason}
            for device_id, refused in folder.refused_files.examples(_REFUSED_SHOWN)
        ],
        "held_back": [
            {"device_id": str(device_id), "local_bytes": held} for device_id, held in sorted(folder.held_back.items())
        ],
        "missing_files": folder.missing_files,
        "missing_examples": [
            {"name": name[:_NAME_SHOWN], "object": key} for name, key in folder.missing_examples(_MISSING_SHOWN)
        ],
        "lost": list(lost[-_LOST_SHOWN:]),
        "lost_count": len(lost),
        "limits_reached": [_limit(limit) for limit in reached],
        **_dissents(folder, name_of),
    }


def _dissents(folder: Folder, name_of: Callable[[DeviceID], str]) -> dict[str, Any]:
    dissents = folder.dissents(_DISSENTING_SHOWN)
    return {
        "conflicting_files": dissents.conflicts,
        "disputed_files": dissents.names,
        "dissents": dissents.versions,
        "dissenting_devices": dissents.devices,
        "dissents_of": [
            {
                "device_id": str(one.device_id),
                "name": name_of(one.device_id),
                "dissents": one.dissents,
                "conflicts": one.conflicts,
            }
            for one in dissents.of_devices
        ],
    }


def _failing_example(failure: Failure) -> dict[str, Any]:
    devices = sorted(map(str, failure.devices))[:_REFUSALS_SHOWN]
    return {"name": failure.name[:_NAME_SHOWN], "error": str(failure.error), "device_ids": devices}


def _limit(limit: Limit) -> dict[str, Any]:
    return {
        "kind": limit.kind.value,
        "device_id": str(limit.device_id) if limit.device_id is not None else None,
        "bytes": limit.size,
        "used_bytes": limit.used,
    }


def closed_folder_status(closed: ClosedFolder, lost: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON of a folder that is not open."""
    return _failed_folder(closed.folder_id, closed.label, closed.error, lost)


def any_folder_status(
    folder: Folder,
    task_error: str | None = None,
    lost: Sequence[str] = (),
    name_of: Callable[[DeviceID], str] = lambda device_id: "",
) -> dict[str, Any]:
    """Return the JSON of a folder, also of one whose state cannot be read."""
    try:
        return folder_status(folder, task_error, lost, name_of)
    except Exception as error:
        text = f"the local state cannot be read: {type(error).__name__}: {error}"
        return _failed_folder(folder.record.folder_id, folder.record.label, text, lost)


def _failed_folder(folder_id: str, label: str, error: str, lost: Sequence[str]) -> dict[str, Any]:
    numbers = ("files", "directories", "deleted", "bytes", "sequence", "pending_files", "pending_bytes")
    return {
        "id": folder_id,
        "label": label,
        **dict.fromkeys(numbers, 0),
        "remote_sequence": {},
        "state": "error",
        "error": error,
        "failing_files": 0,
        "failing_example": None,
        "refused_files": 0,
        "refused_examples": [],
        "held_back": [],
        "missing_files": 0,
        "missing_examples": [],
        "lost": list(lost[-_LOST_SHOWN:]),
        "lost_count": len(lost),
        "limits_reached": [],
        **_NO_DISSENTS,
    }


def peer_name(peer: Peer) -> str:
    """Return the name of an accepted device as it is shown, or nothing."""
    session = peer.session
    return (peer.record.name or (session.hello.device_name if session and session.hello else ""))[:_TEXT_SHOWN]


def peer_status(device_id: DeviceID, peer: Peer) -> dict[str, Any]:
    """Return the JSON of an accepted device."""
    session = peer.session
    return {
        "device_id": str(device_id),
        "name": peer_name(peer),
        "connected": session is not None,
        "address": session.transport.address if session else "",
        "client": peer.client[:_TEXT_SHOWN],
        "folders": session.shared_folders if session else [],
        "read_only": peer.record.read_only,
        "allowed_folders": _shown_folders(peer.record),
        "refused_folders": _refused_folders(peer.refused),
        "refused_indexes": [
            _refused_index(folder_id, refused)
            for folder_id, refused in list(peer.refused_indexes.items())[:_REFUSALS_SHOWN]
        ],
        "error": _refusals_text(peer.refused) or peer.error,
    }


def _shown_folders(record: PeerRecord) -> list[str] | None:
    """Return the IDs of the folders that a device may share, or some of them; None for all."""
    return list(record.folders[:_ALLOWED_SHOWN]) if record.folders is not None else None


def _refused_index(folder_id: str, refused: RefusedIndex) -> dict[str, Any]:
    return {
        "id": folder_id,
        "reason": refused.reason,
        "entries_from": [
            {"device_id": str(suspect.device_id), "entries": suspect.entries, "trusted": suspect.trusted}
            for suspect in refused.suspects[:_REFUSALS_SHOWN]
        ],
    }


def _refused_folders(refused: Mapping[str, Refusal]) -> list[dict[str, str]]:
    return [
        {
            "id": folder_id[:_TEXT_SHOWN],
            "label": refusal.label[:_TEXT_SHOWN],
            "kind": refusal.kind,
            "reason": refusal.reason,
        }
        for folder_id, refusal in list(refused.items())[:_REFUSALS_SHOWN]
    ]


def redacted(value: Any) -> Any:
    """Return a part of the status whose error texts, at any depth, have lost the signatures of URLs."""
    if isinstance(value, dict):
        return {
            key: redact_text(inner) if key == "error" and isinstance(inner, str) else redacted(inner)
            for key, inner in value.items()
        }
    return [redacted(inner) for inner in value] if isinstance(value, list) else value


def any_peer_status(device_id: DeviceID, peer: Peer) -> dict[str, Any]:
    """Return the JSON of an accepted device, also of one whose state cannot be read."""
    try:
        return peer_status(device_id, peer)
    except Exception as error:
        empty = {
            "name": "",
            "connected": False,
            "address": "",
            "client": "",
            "folders": [],
            "read_only": peer.record.read_only,
            "allowed_folders": _shown_folders(peer.record),
            "refused_folders": [],
            "refused_indexes": [],
        }
        text = f"the state of the device cannot be read: {type(error).__name__}: {error}"
        return {"device_id": str(device_id), **empty, "error": text}


def _refusals_text(refused: Mapping[str, Refusal]) -> str:
    """Return why folders are refused. A device can offer many, with labels of any length."""
    texts = [_refusal_text(one) for one in list(refused.items())[:_REFUSALS_SHOWN]]
    if len(refused) > _REFUSALS_SHOWN:
        texts.append(f"and {len(refused) - _REFUSALS_SHOWN} more folders")
    return "; ".join(texts)


def _refusal_text(refused: tuple[str, Refusal]) -> str:
    folder_id, refusal = refused
    return f"folder {(refusal.label or folder_id)[:_TEXT_SHOWN]!r}: {refusal.reason}"


def unknown_status(device_id: DeviceID, unknown: UnknownDevice) -> dict[str, Any]:
    """Return the JSON of a device that is not accepted."""
    return {
        "device_id": str(device_id),
        "name": unknown.name[:_TEXT_SHOWN],
        "address": unknown.address,
        "last_seen": datetime.fromtimestamp(unknown.last_seen, UTC).isoformat(timespec="seconds"),
    }


def task_status(task: TaskStatus) -> dict[str, Any]:
    """Return the JSON of a background task."""
    return {
        "name": task.name,
        "state": task.state.value,
        "failing": task.failing,
        "failures": task.failures,
        "error": task.error,
    }
