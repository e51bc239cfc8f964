"""The JSON of /api/status, field by field: scripts of users rely on it."""

from __future__ import annotations

import json
import sqlite3
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import BlockUnavailable, StateDamaged
from untrusted_s3.gateway.closed_folders import ClosedFolder
from untrusted_s3.gateway.peers import Peer, UnknownDevice
from untrusted_s3.gateway.status import (
    any_folder_status,
    any_peer_status,
    closed_folder_status,
    folder_status,
    peer_status,
    redacted,
    task_status,
    unknown_status,
)
from untrusted_s3.index.dissent_counts import Dissents, DissentsOf
from untrusted_s3.index.refused import Refused, RefusedFiles
from untrusted_s3.store.records import FolderRecord, PeerRecord
from untrusted_s3.supervisor import TaskState, TaskStatus
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.failures import Failure
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit, LimitKind
from untrusted_s3.sync.refused_index import RefusedIndex, Suspect
from untrusted_s3.sync.session import Session

DEVICE = DeviceID(bytes(range(32)))
OTHER = DeviceID(bytes(range(1, 33)))
NUMBERS = ("files", "directories", "deleted", "bytes", "sequence", "pending_files", "pending_bytes")


def a_folder(**changes: Any) -> Folder:
    fields: dict[str, Any] = {
        "record": FolderRecord("f", "Label", bytes(40)),
        "totals": SimpleNamespace(files=1, directories=2, deleted=3, bytes=4),
        "pending_totals": (6, 7),
        "own_index": SimpleNamespace(max_sequence=5),
        "sources": {DEVICE: None},
        "received": lambda device_id: SimpleNamespace(max_sequence={DEVICE: 9}[device_id]),
        "error": None,
        "syncing": False,
        "failing": (0, None),
        "refused_files": RefusedFiles(),
        "held_back": {},
        "missing_files": 0,
        "missing_examples": lambda limit: [("a name", "folders/f/objects/an object")][:limit],
        "dissents": lambda limit: Dissents(),
        "limits_reached": [],
    }
    return cast(Folder, SimpleNamespace(**{**fields, **changes}))


def test_a_folder() -> None:
    assert folder_status(a_folder()) == {
        "id": "f",
        "label": "Label",
        "files": 1,
        "directories": 2,
        "deleted": 3,
        "bytes": 4,
        "sequence": 5,
        "remote_sequence": {str(DEVICE): 9},
        "pending_files": 6,
        "pending_bytes": 7,
        "state": "idle",
        "error": None,
        "failing_files": 0,
        "failing_example": None,
        "refused_files": 0,
        "refused_examples": [],
        "held_back": [],
        "missing_files": 0,
        "missing_examples": [{"name": "a name", "object": "folders/f/objects/an object"}],
        "lost": [],
        "conflicting_files": 0,
        "disputed_files": 0,
        "dissents": 0,
        "dissenting_devices": 0,
        "dissents_of": [],
        "lost_count": 0,
        "limits_reached": [],
    }


def test_files_that_wait_for_room() -> None:
    reached = [Limit(LimitKind.FOLDER, 10, 9), Limit(LimitKind.DEVICE, 1024, 7, DEVICE)]
    status = folder_status(a_folder(limits_reached=reached))
    assert status["state"] == "error"
    assert status["error"] == (
        f"the quota of the folder, 10 B, is reached; the quota of the device {DEVICE}, 1.0 KiB, is reached"
    )
    assert status["limits_reached"] == [
        {"kind": "folder", "device_id": None, "bytes": 10, "used_bytes": 9},
        {"kind": "device", "device_id": str(DEVICE), "bytes": 1024, "used_bytes": 7},
    ]
    assert folder_status(a_folder(limits_reached=reached, error="the store"))["error"] == "the store"


def test_files_of_which_devices_have_different_versions() -> None:
    asked = []

    def dissents(limit: int) -> Dissents:
        asked.append(limit)
        return Dissents(2, 5, 1, (DissentsOf(DEVICE, 2, 1), DissentsOf(OTHER, 1)), 70)

    folder = a_folder(dissents=dissents)
    status = folder_status(folder, name_of=lambda device_id: "laptop" if device_id == DEVICE else "")
    fields = ("conflicting_files", "disputed_files", "dissents", "dissenting_devices")
    assert tuple(status[field] for field in fields) == (1, 2, 5, 70)
    assert status["dissents_of"] == [
        {"device_id": str(DEVICE), "name": "laptop", "dissents": 2, "conflicts": 1},
        {"device_id": str(OTHER), "name": "", "dissents": 1, "conflicts": 0},
    ]
    assert asked == [20], "a status is small"


def test_files_of_a_folder_that_are_left_out() -> None:
    refused = RefusedFiles()
    refused.update(DEVICE, [Refused.of(bytes([n]), f"name {n}", n, "a bad block") for n in range(30)], [])
    failure = Failure("another", b"", frozenset(), BlockUnavailable("no connected peer has it"), 1, 0.0)
    status = folder_status(a_folder(refused_files=refused, failing=(7, failure)))
    assert status["state"] == "idle"
    assert (status["failing_files"], status["refused_files"]) == (7, 30)
    assert status["failing_example"] == {"name": "another", "error": "no connected peer has it", "device_ids": []}
    assert status["refused_examples"] == [
        {"device_id": str(DEVICE), "name": f"name {n}", "reason": "a bad block"} for n in range(10)
    ]


def test_long_names_make_no_long_status() -> None:
    long = "n" * 60_000
    refused = RefusedFiles()
    refused.update(DEVICE, [Refused.of(bytes([n]), long, n, "a bad block") for n in range(30)], [])
    failure = Failure(long, b"", frozenset(), BlockUnavailable("no connected peer has it"), 1, 0.0)
    folder = a_folder(
        refused_files=refused, failing=(7, failure), missing_examples=lambda limit: [(long, "key")] * limit
    )
    assert len(json.dumps(folder_status(folder))) < 50_000


@pytest.mark.parametrize(
    ("changes", "task_error", "state", "error"),
    [
        ({"syncing": True}, None, "syncing", None),
        ({"error": "no store"}, None, "error", "no store"),
        ({"error": "no store", "syncing": True}, "a task fails", "error", "no store"),
        ({"syncing": True}, "a task fails", "error", "a task fails"),
    ],
)
def test_the_state_of_a_folder(changes: dict[str, Any], task_error: str | None, state: str, error: str | None) -> None:
    status = folder_status(a_folder(**changes), task_error)
    assert (status["state"], status["error"]) == (state, error)


@pytest.mark.parametrize("error", [StateDamaged("not a database"), sqlite3.OperationalError("disk"), KeyError("x")])
def test_a_folder_whose_state_cannot_be_read_shows_an_error(error: Exception) -> None:
    class Broken:
        record = FolderRecord("f", "Label", bytes(40))

        @property
        def totals(self) -> object:
            raise error

    status = any_folder_status(cast(Folder, Broken()))
    assert (status["id"], status["label"], status["state"], status["files"]) == ("f", "Label", "error", 0)
    assert str(error) in status["error"]
    assert status.keys() == folder_status(a_folder()).keys()
    assert any_folder_status(a_folder()) == folder_status(a_folder())


def test_a_folder_that_is_not_open() -> None:
    status = closed_folder_status(ClosedFolder("f", "Label", "a bad segment"))
    assert status == {
        **any_folder_status(a_folder()),
        **dict.fromkeys(NUMBERS, 0),
        "remote_sequence": {},
        "missing_examples": [],
        "state": "error",
        "error": "a bad segment",
    }


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "x"]), inner)))
def test_errors_lose_signatures_at_any_depth(value: object) -> None:
    url = "https://h/k?X-Amz-Signature=5ec4e7"
    shown = redacted({"a": [value, {"error": url}], "error": f"no {url}", "name": "X"})
    assert "5ec4e7" not in repr(shown) and shown["name"] == "X"


def test_a_device_that_was_never_connected() -> None:
    assert peer_status(DEVICE, Peer(PeerRecord(DEVICE, "laptop"))) == {
        "device_id": str(DEVICE),
        "name": "laptop",
        "connected": False,
        "address": "",
        "client": "",
        "folders": [],
        "read_only": False,
        "allowed_folders": None,
        "refused_folders": [],
        "refused_indexes": [],
        "error": None,
    }


def test_a_device_that_cannot_decrypt_an_index() -> None:
    peer = Peer(PeerRecord(DEVICE))
    peer.refused_indexes["f"] = RefusedIndex("it said so", (Suspect(DEVICE, 3, trusted=False),))
    assert peer_status(DEVICE, peer)["refused_indexes"] == [
        {
            "id": "f",
            "reason": "it said so",
            "entries_from": [{"device_id": str(DEVICE), "entries": 3, "trusted": False}],
        }
    ]


def test_what_a_device_may_do() -> None:
    status = peer_status(DEVICE, Peer(PeerRecord(DEVICE, read_only=True, folders=("f",))))
    assert (status["read_only"], status["allowed_folders"]) == (True, ["f"])


@pytest.mark.parametrize(("name", "shown"), [("laptop", "laptop"), ("", "its own name")])
def test_a_device_that_is_connected(name: str, shown: str) -> None:
    session = SimpleNamespace(
        hello=SimpleNamespace(device_name="its own name"),
        transport=SimpleNamespace(address="tcp://192.0.2.1:22000"),
        shared_folders=["f", "g"],
    )
    peer = Peer(PeerRecord(DEVICE, name), cast(Session, session), client="syncthing v2.1.3")
    assert peer_status(DEVICE, peer) == {
        "device_id": str(DEVICE),
        "name": shown,
        "connected": True,
        "address": "tcp://192.0.2.1:22000",
        "client": "syncthing v2.1.3",
        "folders": ["f", "g"],
        "read_only": False,
        "allowed_folders": None,
        "refused_folders": [],
        "refused_indexes": [],
        "error": None,
    }


def test_the_error_of_a_device_names_refused_folders_before_the_end_of_its_connection() -> None:
    peer = Peer(PeerRecord(DEVICE), error="broke off")
    assert peer_status(DEVICE, peer)["error"] == "broke off"
    peer.refused = {"f": Refusal("Photos", "another password"), "g": Refusal("", "not encrypted")}
    assert peer_status(DEVICE, peer)["refused_folders"] == [
        {"id": "f", "label": "Photos", "kind": "other", "reason": "another password"},
        {"id": "g", "label": "", "kind": "other", "reason": "not encrypted"},
    ]
    assert peer_status(DEVICE, peer)["error"] == "folder 'Photos': another password; folder 'g': not encrypted"


def test_a_device_whose_state_cannot_be_read_shows_an_error() -> None:
    broken = Peer(PeerRecord(DEVICE, "laptop"), cast(Session, SimpleNamespace()))
    status = any_peer_status(DEVICE, broken)
    assert status.keys() == peer_status(DEVICE, Peer(PeerRecord(DEVICE))).keys()
    assert status["device_id"] == str(DEVICE) and "AttributeError" in status["error"]
    assert any_peer_status(DEVICE, Peer(PeerRecord(DEVICE))) == peer_status(DEVICE, Peer(PeerRecord(DEVICE)))


def test_what_a_device_chooses_makes_no_long_status() -> None:
    long = "x" * 32_000
    session = SimpleNamespace(
        hello=SimpleNamespace(device_name=long), transport=SimpleNamespace(address="a"), shared_folders=[]
    )
    refused = {f"{number}{long}": Refusal(long, "another password") for number in range(1000)}
    peer = Peer(PeerRecord(DEVICE), cast(Session, session), client=long, refused=refused)
    shown = peer_status(DEVICE, peer)
    assert len(json.dumps(shown)) < 20_000
    assert shown["error"].endswith("; and 980 more folders")
    assert len(json.dumps(unknown_status(DEVICE, UnknownDevice(looked_up=5.0, name=long)))) < 1000


def test_an_unknown_device() -> None:
    unknown = UnknownDevice(looked_up=5.0, name="new", address="tcp://192.0.2.1:1", last_seen=1_767_225_600.7)
    assert unknown_status(DEVICE, unknown) == {
        "device_id": str(DEVICE),
        "name": "new",
        "address": "tcp://192.0.2.1:1",
        "last_seen": "2026-01-01T00:00:00+00:00",
    }


def test_a_task() -> None:
    assert task_status(TaskStatus("dial", TaskState.RUNNING, 0, False, None)) == {
        "name": "dial",
        "state": "running",
        "failing": False,
        "failures": 0,
        "error": None,
    }
    assert (
        task_status(TaskStatus("dial", TaskState.WAITING, 2, True, "ValueError: no"))["state"] == "waiting to restart"
    )
