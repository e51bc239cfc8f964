"""Gateways with many folders and devices: what a status costs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.file_infos import device
from tests.gateway.idle import PeerDevice, idle_gateways
from tests.virtual_time import virtual_time
from untrusted_s3.gateway.http.metrics import Snapshot, metrics_text
from untrusted_s3.gateway.status import in_steps
from untrusted_s3.index.database import Database

FOLDERS, DEVICES = 20, 10


@contextmanager
def counted_statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Note the statements that are sent to local databases."""
    sent: list[str] = []
    plain = Database.cursor

    def cursor(self: Database, *arguments: object) -> sqlite3.Cursor:
        sent.append("a statement")
        found: sqlite3.Cursor = plain(self, *arguments)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Database, "cursor", cursor)
        yield sent


@virtual_time
async def test_a_status_sends_no_statement_to_the_local_databases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many folders and devices there are, and whatever is pending."""
    async with idle_gateways(tmp_path, folders=FOLDERS, devices=DEVICES) as idle:
        gateway = idle.gateways[0]
        for folder in idle.folders():
            for number in range(DEVICES):
                PeerDevice(device(100 + number), folder).connect()
        await asyncio.sleep(65)
        first = gateway.status()
        assert all(len(folder["remote_sequence"]) == DEVICES for folder in first["folders"])
        with counted_statements(monkeypatch) as sent:
            assert gateway.status() == first
            assert await gateway.status_in_steps() == first
            text = metrics_text(CollectorRegistry(), await Snapshot.of(gateway))
            assert gateway.problems == []
        assert sent == []
        assert text.count(b"untrusted_s3_folder_pending_files{") == FOLDERS
        json.dumps(first)


async def test_others_get_their_turns_during_a_long_status() -> None:
    turns = 0

    def steps() -> Iterator[int]:
        for _ in range(100):
            yield 100

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await in_steps(steps())  # type: ignore[arg-type]
    task.cancel()
    assert turns >= 100 * 100 / 500
