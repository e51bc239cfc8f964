"""`status`: what a running gateway answers, as a table and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import DEVICE, RunCLI
from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.cli.advice import CONFLICTS_ADVICE, REFUSAL_ADVICE

STATUS: dict[str, Any] = {
    "device_id": str(DEVICE),
    "version": "9.9",
    "store": "s3://bucket",
    "folders": [
        {
            "id": "photos",
            "label": "Ph\x1b[2Jotos",
            "files": 12345,
            "directories": 3,
            "deleted": 0,
            "bytes": 5 << 30,
            "sequence": 9,
            "pending_files": 2,
            "pending_bytes": 2048,
            "state": "syncing",
            "error": None,
        }
    ],
    "peers": [
        {
            "device_id": str(DEVICE),
            "name": "laptop",
            "connected": True,
            "address": "127.0.0.1:1",
            "client": "syncthing v1",
            "error": None,
        }
    ],
    "unknown_devices": [{"device_id": str(DEVICE), "name": "new", "address": "127.0.0.1:2", "last_seen": "now"}],
}


def with_scrub(progress: float, finished: str | None) -> dict[str, Any]:
    """Return a status whose folder is scrubbed."""
    scrub = {"progress": progress, "began": "then", "finished": finished, "objects": 70, "bytes": 9, "damaged": 3}
    return {**STATUS, "folders": [{**STATUS["folders"][0], "scrub": {**scrub, "device_id": str(DEVICE)}}]}


def test_the_scrub(run_cli: RunCLI) -> None:
    for finished in (None, "2026-11-01T00:00:00+00:00"):
        status = json.dumps(with_scrub(0.421, finished)).encode()
        with http_server(lambda request, status=status: Answer(200, status)) as url:  # type: ignore[misc]
            lines = run_cli("status", "--http", url.removeprefix("http://")).stdout.splitlines()
        (line,) = [line for line in lines if "42%" in line]
        assert line.split() == ["photos", "42%", "70", "3", finished or "never"]


@pytest.fixture
def gateway_address() -> Iterator[str]:
    def answer(request: Request) -> Answer:
        assert request.headers["Host"] == "localhost", "a name that every gateway answers"
        return Answer(200, json.dumps(STATUS).encode()) if request.path == "/api/status" else Answer(404)

    with http_server(answer) as url:
        yield url.removeprefix("http://")


def test_status(run_cli: RunCLI, gateway_address: str) -> None:
    assert json.loads(run_cli("status", "--json", "--http", gateway_address).stdout) == STATUS
    outcome = run_cli("status", "--http", gateway_address)
    assert outcome.exit_code == 0
    for text in ("photos", "12,345", "5.0 GiB", "syncing", "laptop", "syncthing v1", "new"):
        assert text in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_what_the_store_has_lost_is_shown(
    run_cli: RunCLI, gateway_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_cli("status", "--http", gateway_address)
    assert "LOST BY THE STORE" not in outcome.stdout and "--clear" not in outcome.stderr
    folder = {**STATUS["folders"][0], "missing_files": 1, "lost": ["the log has lost segment 3"], "lost_count": 5}
    monkeypatch.setitem(STATUS, "folders", [folder])
    outcome = run_cli("status", "--http", gateway_address)
    for text in ("LOST BY THE STORE", "1 file: their objects are missing", "has lost segment 3", "and 4 more"):
        assert text in outcome.stdout
    assert "folders losses FOLDER --clear" in outcome.stderr
    monkeypatch.setitem(STATUS, "folders", [{**folder, "lost": [], "lost_count": 0}])
    outcome = run_cli("status", "--http", gateway_address)
    assert "1 file: their objects are missing" in outcome.stdout and "--clear" not in outcome.stderr


def test_limits_are_shown_with_what_is_used_and_what_to_do(
    run_cli: RunCLI, gateway_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_cli("status", "--http", gateway_address)
    assert "LIMIT OF" not in outcome.stdout and "--quota" not in outcome.stderr
    monkeypatch.setitem(STATUS, "folders", [{**STATUS["folders"][0], "quota": 6 << 30}])
    monkeypatch.setitem(STATUS, "peers", [{**STATUS["peers"][0], "quota": 1 << 20, "used_bytes": 1 << 10}])
    monkeypatch.setitem(STATUS, "max_store", 9 << 30)
    monkeypatch.setitem(STATUS, "used_bytes", 7 << 30)
    outcome = run_cli("status", "--http", gateway_address)
    for row in (
        r"folder +photos +6\.0 GiB +5\.0 GiB",
        r"device +laptop +1\.0 MiB +1\.0 KiB",
        r"store +9\.0 GiB +7\.0 GiB",
    ):
        assert re.search(f"^{row}$", outcome.stdout, re.MULTILINE), outcome.stdout
    assert "--quota" not in outcome.stderr
    reached = [{"kind": kind, "device_id": None, "bytes": 1, "used_bytes": 1} for kind in ("store", "device")]
    monkeypatch.setitem(STATUS, "folders", [{**STATUS["folders"][0], "limits_reached": reached}])
    advice = run_cli("status", "--http", gateway_address).stderr
    assert "peers set DEVICE_ID --quota" in advice and "serve --max-store" in advice and "folders set" not in advice


@pytest.mark.parametrize("kind", sorted(REFUSAL_ADVICE))
def test_refused_folders_are_shown_with_their_reason_and_what_to_do(
    run_cli: RunCLI, gateway_address: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"id": "music", "label": "Music", "kind": kind, "reason": "for some reason"}
    peer = {**STATUS["peers"][0], "folders": [], "refused_folders": [refused], "error": "in other words"}
    monkeypatch.setitem(STATUS, "peers", [peer])
    outcome = run_cli("status", "--http", gateway_address)
    assert re.search(r"^music +Music +laptop +for some reason$", outcome.stdout, re.MULTILINE)
    assert REFUSAL_ADVICE[kind] in outcome.stderr
    assert "shares no folder" not in outcome.stderr


def test_an_index_that_a_device_cannot_decrypt_is_shown_with_what_to_do(
    run_cli: RunCLI, gateway_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {"device_id": "EQUAL", "entries": 3, "trusted": False},
        {"device_id": "A", "entries": 9, "trusted": True},
    ]
    refused = {"id": "music", "reason": "it said so", "entries_from": sources}
    monkeypatch.setitem(STATUS, "peers", [{**STATUS["peers"][0], "folders": ["music"], "refused_indexes": [refused]}])
    outcome = run_cli("status", "--http", gateway_address)
    assert re.search(
        r"^music +laptop +EQUAL +3 +untrusted\nmusic +laptop +A +9 +trusted$", outcome.stdout, re.MULTILINE
    )
    assert "folders retract FOLDER --device DEVICE_ID" in outcome.stderr
    refused["entries_from"] = []
    assert "not known" in run_cli("status", "--http", gateway_address).stdout


def test_files_that_differ_between_devices_are_shown_with_what_to_do(
    run_cli: RunCLI, gateway_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = [
        {"device_id": "A", "name": "lap\x1b[2Jtop", "dissents": 1200},
        {"device_id": "B", "name": "", "dissents": 1},
    ]
    differing = {
        "conflicting_files": 2,
        "disputed_files": 1234,
        "dissents": 1300,
        "dissenting_devices": 9,
        "dissents_of": devices,
    }
    folders = [{**STATUS["folders"][0], **differing}, {**STATUS["folders"][0], "disputed_files": 0}]
    monkeypatch.setitem(STATUS, "folders", folders)
    outcome = run_cli("status", "--http", gateway_address)
    rows = [re.split("  +", line.rstrip()) for line in outcome.stdout.splitlines() if "1,234" in line]
    assert [row[2:] for row in rows] == [
        ["2", "1,234", "lap\\x1b[2Jtop", "1,200"],
        ["2", "1,234", "B", "1"],
        ["2", "1,234", "and 7 more"],
    ]
    assert CONFLICTS_ADVICE in outcome.stderr
    differing["conflicting_files"] = 0
    monkeypatch.setitem(STATUS, "folders", [{**STATUS["folders"][0], **differing}])
    outcome = run_cli("status", "--http", gateway_address)
    assert "1,234" in outcome.stdout
    assert CONFLICTS_ADVICE not in outcome.stderr, "devices that are away are no conflict"
    monkeypatch.setitem(STATUS, "folders", folders[1:])
    assert "DIFFER" not in run_cli("status", "--http", gateway_address).stdout


def test_a_device_that_shares_nothing_is_a_reason_for_advice(
    run_cli: RunCLI, gateway_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STATUS, "peers", [{**STATUS["peers"][0], "folders": []}])
    assert "peers add DEVICE_ID --share FOLDER" in run_cli("status", "--http", gateway_address).stderr


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_status_where_the_gateway_listens_everywhere(run_cli: RunCLI, gateway_address: str, host: str) -> None:
    assert run_cli("status", "--http", f"{host}:{gateway_address.rpartition(':')[2]}").exit_code == 0


def test_status_without_a_gateway(run_cli: RunCLI) -> None:
    outcome = run_cli("status", "--http", "127.0.0.1:9")
    assert (outcome.exit_code, outcome.stdout) == (5, "")
    assert "untrusted-s3 serve" in outcome.stderr
    assert run_cli("status", "--http", "none").exit_code == 2


@pytest.mark.parametrize("answer", [Answer(404), Answer(200, b"<html>"), Answer(200, b"[]"), Answer(200, b"5"), None])
def test_status_of_something_else(run_cli: RunCLI, answer: Answer | None) -> None:
    with http_server(lambda request: answer) as url:
        assert run_cli("status", "--http", url.removeprefix("http://")).exit_code == 5


def test_what_the_store_denies(run_cli: RunCLI) -> None:
    for denied in ([], ["DeleteObject", "AbortMultipartUpload"]):
        answer = json.dumps({**STATUS, "denied": denied}).encode()
        with http_server(lambda request, answer=answer: Answer(200, answer)) as url:  # type: ignore[misc]
            lines = run_cli("status", "--http", url.removeprefix("http://")).stdout.splitlines()
        said = [line for line in lines if line.startswith("Denied")]
        assert len(said) == bool(denied)
        assert all("DeleteObject, AbortMultipartUpload" in line and "gc --delete" in line for line in said)
