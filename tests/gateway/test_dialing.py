"""Whom the gateway dials, and when."""

from __future__ import annotations

import asyncio

from tests.waiting import until
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DialFailed
from untrusted_s3.gateway.dialing import Dialing
from untrusted_s3.settings import ConnectionSettings
from untrusted_s3.store.records import PeerRecord

ONE, OTHER = DeviceID(bytes([1]) * 32), DeviceID(bytes([2]) * 32)


class Network:
    """Peers, what is dialed, and the time. `answering` are the addresses that can be connected to, `silent`
    those where a connection takes without end."""

    def __init__(self, *records: PeerRecord) -> None:
        self.peers = list(records)
        self.connected: set[DeviceID] = set()
        self.answering: set[str] = set()
        self.silent: set[str] = set()
        self.dialed: list[str] = []
        self.now = 1000.0
        settings = ConnectionSettings(dial_interval=10, max_dial_interval=60)
        self.dialing = Dialing(self, self._dial, settings, clock=lambda: self.now)

    def records(self) -> list[PeerRecord]:
        return self.peers

    def is_connected(self, device_id: DeviceID) -> bool:
        return device_id in self.connected

    async def _dial(self, address: str, device_id: DeviceID) -> None:
        assert device_id in [peer.device_id for peer in self.peers if address in peer.addresses]
        self.dialed.append(address)
        if address in self.silent:
            await asyncio.get_running_loop().create_future()
        if address not in self.answering:
            raise DialFailed("nobody there")

    async def turn(self) -> list[str]:
        """Take a turn; what it dials."""
        self.dialed.clear()
        await self.dialing.turn()
        return list(self.dialed)

    async def seconds_until_next(self) -> float:
        """Move the time on until something is dialed again."""
        began = self.now
        while not await self.turn():
            self.now += 0.25
        return self.now - began


async def test_every_address_is_tried_until_one_answers() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1", "tcp://b:1", "tcp://c:1")))
    network.answering = {"tcp://b:1"}
    assert await network.turn() == ["tcp://a:1", "tcp://b:1"]


async def test_a_device_without_addresses_is_not_dialed() -> None:
    network = Network(PeerRecord(ONE), PeerRecord(OTHER, addresses=("tcp://b:1",)))
    assert await network.turn() == ["tcp://b:1"]


async def test_a_connected_device_is_not_dialed() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1",)), PeerRecord(OTHER, addresses=("tcp://b:1",)))
    network.connected = {ONE}
    assert await network.turn() == ["tcp://b:1"]


async def test_pauses_double_up_to_a_bound_and_differ_a_little() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1",)))
    assert await network.turn() == ["tcp://a:1"]
    for longest in (5, 10, 20, 40, 60, 60):
        seconds = await network.seconds_until_next()
        assert 0.7 * longest <= seconds <= longest + 0.25


async def test_after_a_connection_pauses_begin_short_again() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1",)))
    await network.turn()
    for _ in range(4):
        await network.seconds_until_next()
    network.connected = {ONE}
    network.now += 60
    assert await network.turn() == []
    network.connected.clear()
    assert await network.turn() == ["tcp://a:1"]
    assert await network.seconds_until_next() <= 5.25


async def test_one_device_does_not_hold_up_another() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1",)))
    await network.turn()
    network.peers.append(PeerRecord(OTHER, addresses=("tcp://b:1",)))
    assert await network.turn() == ["tcp://b:1"]


async def test_a_device_that_takes_long_to_answer_does_not_hold_up_another() -> None:
    network = Network(PeerRecord(ONE, addresses=("tcp://a:1",)), PeerRecord(OTHER, addresses=("tcp://b:1",)))
    network.silent = {"tcp://a:1"}
    dialing = asyncio.create_task(network.dialing.run())
    await until(lambda: "tcp://b:1" in network.dialed)
    network.now += 100
    await until(lambda: network.dialed.count("tcp://b:1") == 2)
    assert network.dialed.count("tcp://a:1") == 1
    dialing.cancel()
    await asyncio.wait([dialing])
