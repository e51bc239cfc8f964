"""Devices that meet only their own gateway, where the gateways share the folder with each other: in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sync.judging_device import Gateway, Judge, logged, version, virtual_store
from tests.sync.linked_gateways import Link
from tests.sync.scripted_device import Device
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.file_info import parse_file_info

pytestmark = virtual_time

DAY = 86_400.0


class Chain:
    """Device A at one gateway, B at another one. Nobody but the gateways is connected all the time."""

    def __init__(self, home: Path) -> None:
        self.gateways = Gateway(virtual_store(), home / "one"), Gateway(virtual_store(), home / "other")
        self.a, self.b = Judge(1), Judge(2)
        self.link = Link(*self.gateways)

    async def start(self) -> None:
        for gateway in self.gateways:
            await gateway.start()
        await self.link.connect()

    async def close(self) -> None:
        await self.link.disconnect()
        for gateway in self.gateways:
            await gateway.close()

    async def meet(self, judge: Judge, seconds: float = 70.0) -> None:
        """Let a device be connected to its gateway for some time."""
        await judge.connect(self.gateways[0 if judge is self.a else 1].folder)
        await asyncio.sleep(seconds)
        await judge.disconnect()

    async def rounds(self, times: int, pause: float = 100.0) -> None:
        """Let both devices come in turn."""
        for _ in range(times):
            for judge in (self.a, self.b):
                await self.meet(judge)
                await asyncio.sleep(pause)

    @property
    def entries(self) -> list[int]:
        """How many entries each log has."""
        return [len(logged(gateway.store)) for gateway in self.gateways]


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[Chain]:
    made = Chain(tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("a_wins", [True, False])
@pytest.mark.parametrize("numbers", [(10, 20), (20, 10)])
async def test_devices_at_two_gateways_end_equal(chain: Chain, numbers: tuple[int, int], a_wins: bool) -> None:
    of_a, of_b = numbers
    chain.a.edit(version("f", of_a, 2 if a_wins else 1))
    chain.b.edit(version("f", of_b, 1 if a_wins else 2))
    await chain.rounds(4)
    wins = of_a if a_wins else of_b
    assert chain.a.number("f") == chain.b.number("f") == wins
    assert [gateway.numbers("f") for gateway in chain.gateways] == [[wins], [wins]]
    assert chain.a.sees_complete() and chain.b.sees_complete()
    assert len(chain.a.sent) + len(chain.b.sent) + chain.link.entries_sent < 20


async def test_a_deletion_that_loses(chain: Chain) -> None:
    chain.a.edit(version("f", 5, 0))
    await chain.rounds(2)
    chain.a.edit(version("f", 10, 2))
    chain.b.edit(version("f", 20, 1, gone=True))
    await chain.rounds(4)
    assert chain.a.number("f") == chain.b.number("f") == 10
    assert chain.a.sees_complete() and chain.b.sees_complete()


async def test_changes_that_follow_each_other_cost_no_more_entries(chain: Chain) -> None:
    for number in range(10):
        chain.a.edit(version(number, 10, 1))
    await chain.rounds(2)
    for number in range(5):
        chain.b.edit(version(number, 20, 2))
    await chain.rounds(2)
    assert chain.entries == [15, 15]
    for number in range(10):
        assert chain.gateways[0].numbers(number) == chain.gateways[1].numbers(number) == [20 if number < 5 else 10]
    assert chain.a.sees_complete() and chain.b.sees_complete()


async def test_gateways_rest_where_each_device_stays_with_its_own(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.a, chain.b = Judge(1, takes_over=False), Judge(2, takes_over=False)
    await chain.start()
    chain.a.edit(version("f", 10, 1))
    chain.b.edit(version("f", 20, 1))
    await chain.rounds(3)
    assert {*chain.gateways[0].numbers("f")} == {*chain.gateways[1].numbers("f")} == {10, 20}
    entries, sent = chain.entries, chain.link.entries_sent
    await asyncio.sleep(DAY / 8)
    assert (chain.entries, chain.link.entries_sent) == (entries, sent)
    await chain.close()


async def test_a_device_that_was_away_finds_what_the_other_gateway_still_shows(chain: Chain) -> None:
    chain.b.edit(version("f", 20, 1))
    await chain.rounds(1)
    chain.a.edit(version("f", 10, 2))
    await chain.meet(chain.a)
    await chain.meet(chain.a)
    await asyncio.sleep(DAY / 8)
    await chain.meet(chain.b)
    await chain.meet(chain.b)
    assert chain.b.number("f") == 10
    assert chain.b.sees_complete()


async def test_gateways_that_meet_from_time_to_time(chain: Chain) -> None:
    await chain.link.disconnect()
    chain.a.edit(version("f", 10, 2))
    chain.b.edit(version("f", 20, 1))
    for _ in range(4):
        await chain.rounds(1)
        await chain.link.connect()
        await asyncio.sleep(70)
        await chain.link.disconnect()
    await chain.link.connect()
    assert chain.a.number("f") == chain.b.number("f") == 10
    assert chain.a.sees_complete() and chain.b.sees_complete()


async def test_restarts_change_nothing(chain: Chain) -> None:
    chain.a.edit(version("f", 10, 2))
    chain.b.edit(version("f", 20, 1))
    for number in range(4):
        await chain.rounds(1)
        await chain.link.disconnect()
        for gateway in chain.gateways:
            await gateway.crash(keep_state=number % 2 == 0)
            await gateway.start()
        await chain.link.connect()
    assert chain.a.number("f") == chain.b.number("f") == 10
    assert chain.a.sees_complete() and chain.b.sees_complete()


async def test_a_native_untrusted_device_is_not_taken_for_a_gateway(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.link = Link(*chain.gateways, as_gateways=False)
    await chain.start()
    chain.a.edit(version("f", 10, 2))
    chain.b.edit(version("f", 20, 1))
    await chain.meet(chain.b)
    await chain.rounds(3)
    assert chain.gateways[1].numbers("f") == [20]
    await chain.close()


async def test_what_a_gateway_says_of_a_known_version_replaces_nothing(tmp_path: Path) -> None:
    gateway, a, other = Gateway(virtual_store(), tmp_path / "one"), Judge(1), Device(3)
    await gateway.start()
    a.edit(version("f", 10, 2))
    await a.connect(gateway.folder)
    await asyncio.sleep(70)
    await a.disconnect()
    row = gateway.row("f")
    assert row is not None
    honest = row.entry.file_info

    gateway.folder.start_index(other.device_id, IndexState(other.index_id, 0))
    gateway.folder.add_source(other.device_id, other, trusted=False, gateway=True)
    gateway.folder.index_sent(other.device_id, 100)
    other.take(version("f", 5, 1))
    await other.announce(gateway.folder, 1)
    await asyncio.sleep(70)
    assert gateway.claimed("f") == {a.device_id: 10, other.device_id: 5}

    message = pb.FileInfo.FromString(honest.raw)
    message.encrypted = b"made up"
    other.take(parse_file_info(message.SerializeToString()))
    await other.announce(gateway.folder, 1)
    await asyncio.sleep(70)
    row = gateway.row("f")
    assert row is not None
    assert row.entry.file_info.raw == honest.raw
    assert row.entry.source == a.device_id
    assert gateway.numbers("f") == [10]
    gateway.folder.remove_source(other.device_id, other)
    await gateway.close()
