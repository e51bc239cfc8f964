"""Local files in parts: in order, a few at once, and nothing left under way after a failure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.store.multipart import part_ranges
from untrusted_s3.store.transfer import receive_parts, send_parts

AT_ONCE = 3
BODY = bytes(range(256)) * 40


class Wire:
    """Counts what is under way at once. No part ends before the first ones are, and the first one is overtaken."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.most = self.begun = self.ended = 0
        self._together, self._overtaken = asyncio.Event(), asyncio.Event()
        self._fails_at = fails_at

    async def carry(self, what: int) -> None:
        self.begun += 1
        is_first = self.begun == 1
        self.most = max(self.most, self.begun - self.ended)
        try:
            if what == self._fails_at:
                raise StoreUnreachable("no answer")
            if self.begun == AT_ONCE:
                self._together.set()
            await (self._overtaken if is_first else self._together).wait()
            self._overtaken.set()
        finally:
            self.ended += 1


async def test_parts_are_sent_with_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    wire, sent = Wire(), {}

    async def send(number: int, body: bytes) -> str:
        await wire.carry(number)
        sent[number] = body
        return f"etag {number}"

    parts = part_ranges(len(BODY), 1000)
    etags = await send_parts(tmp_path / "file", parts, send, AT_ONCE)
    assert etags == [f"etag {number}" for number in range(1, len(parts) + 1)]
    assert b"".join(sent[number] for number in sorted(sent)) == BODY
    assert wire.most == AT_ONCE


async def test_parts_are_received_in_order(tmp_path: Path) -> None:
    wire = Wire()

    async def receive(start: int, end: int) -> bytes:
        await wire.carry(start // 1000)
        return BODY[start:end]

    await receive_parts(tmp_path / "file", part_ranges(len(BODY), 1000), receive, AT_ONCE)
    assert (tmp_path / "file").read_bytes() == BODY
    assert wire.most == AT_ONCE
    await receive_parts(tmp_path / "file", [], receive, AT_ONCE)
    assert (tmp_path / "file").read_bytes() == b""


async def test_a_failure_leaves_nothing_under_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    parts = part_ranges(len(BODY), 1000)
    sending, receiving = Wire(fails_at=5), Wire(fails_at=5)

    async def send(number: int, body: bytes) -> None:
        await sending.carry(number)

    async def receive(start: int, end: int) -> bytes:
        await receiving.carry(start // 1000)
        return BODY[start:end]

    with pytest.raises(StoreUnreachable):
        await send_parts(tmp_path / "file", parts, send, AT_ONCE)
    with pytest.raises(StoreUnreachable):
        await receive_parts(tmp_path / "file", parts, receive, AT_ONCE)
    for wire in (sending, receiving):
        assert wire.begun == wire.ended < len(parts)
