"""What gateways ask of the store while nothing changes, and when devices hear of what another gateway has written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.file_infos import device, directory
from tests.gateway.idle import ENTRIES, PeerDevice, by_kind, idle_gateways
from tests.simulated import Fault
from tests.virtual_time import virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import FolderKeys

pytestmark = virtual_time
# In five minutes, of two folders, as docs/performance.md has them. There may be one more or less, and a tenth.
REQUESTS = {False: {"GET": 7, "LIST": 3, "PUT": 2}, True: {"GET": 59, "LIST": 4, "PUT": 4}}
# All that a gateway does after its start is done.
SETTLED = 1500.0
# The version before told every change of another gateway after this time at most.
TOLD_WITHIN = 15.0


@pytest.mark.parametrize("gateways", [1, 2])
@pytest.mark.parametrize("connected", [False, True])
async def test_requests_while_nothing_happens(tmp_path: Path, gateways: int, connected: bool) -> None:
    async with idle_gateways(tmp_path, gateways=gateways) as idle:
        found = await idle.requests(connected=connected)
    total, expected = by_kind(found), REQUESTS[connected]
    assert total.keys() == expected.keys(), found
    assert all(abs(total[kind] - expected[kind]) <= 1 + 0.1 * expected[kind] for kind in expected), found


@pytest.mark.parametrize("only_reads", [False, True])
async def test_a_connected_device_hears_of_changes_no_later(tmp_path: Path, only_reads: bool) -> None:
    """Whenever another gateway writes, even one that has never been seen and writes nothing else before."""
    delays = []
    async with idle_gateways(tmp_path) as idle:
        folder = idle.folders()[0]
        peer = PeerDevice(device(100), folder)
        peer.connect(only_reads=only_reads)
        other = idle.others[folder.record.folder_id]
        await asyncio.sleep(SETTLED)
        for number in range(16):
            await asyncio.sleep(602.0)
            written, sequence = asyncio.get_running_loop().time(), await other.append(ENTRIES + number)
            await asyncio.sleep(2 * TOLD_WITHIN)
            delays.append(peer.told[sequence] - written)
    assert max(delays) <= TOLD_WITHIN
    assert max(delays) > TOLD_WITHIN - 3.0, "the times differ"


async def test_a_device_hears_of_what_another_gateways_device_has_made(tmp_path: Path) -> None:
    async with idle_gateways(tmp_path, gateways=2) as idle:
        maker, reader = PeerDevice(device(100), idle.folders(0)[0]), PeerDevice(device(101), idle.folders(1)[0])
        maker.connect()
        reader.connect()
        await asyncio.sleep(SETTLED)
        raw = directory("new", sequence=1).raw
        made = asyncio.get_running_loop().time()
        await maker.folder.take_index(maker.device_id, 7, IndexReceived("f0", (raw,), True, 1, 0))
        await asyncio.sleep(2 * TOLD_WITHIN)
        assert maker.told[ENTRIES + 1] - made < 1.0
        assert reader.told[ENTRIES + 1] - made <= TOLD_WITHIN + 1.0


# When a device connects, in seconds after another gateway has written something.
CONNECTS = [-20.0, -1.0, 0.0, 1.0, 14.0, 16.0, 100.0, 299.0, 301.0, 3000.0]


@pytest.mark.parametrize("since_device", [30.0, 1000.0])
async def test_a_device_that_connects_hears_of_changes_no_later(tmp_path: Path, since_device: float) -> None:
    """However long nobody was connected."""
    async with idle_gateways(tmp_path) as idle:
        folder = idle.folders()[0]
        other = idle.others[folder.record.folder_id]
        await asyncio.sleep(SETTLED)
        loop = asyncio.get_running_loop()
        for number, after in enumerate(CONNECTS):
            peer = PeerDevice(device(100 + number), folder)
            await asyncio.sleep(since_device)
            known = folder.own_index.max_sequence
            if after < 0:
                peer.connect(known=known)
            await asyncio.sleep(max(-after, 0))
            written, sequence = loop.time(), await other.append(ENTRIES + number)
            await asyncio.sleep(max(after, 0))
            connected = loop.time() if after >= 0 else written
            if after >= 0:
                peer.connect(known=known)
            await asyncio.sleep(2 * TOLD_WITHIN)
            assert peer.told[sequence] <= max(connected, written + TOLD_WITHIN) + 0.001, after
            await peer.disconnect()


async def test_the_log_is_checked_when_a_device_comes_after_a_while(tmp_path: Path) -> None:
    """A store may lose the end of a log while nobody looks and no request fails."""
    async with idle_gateways(tmp_path) as idle:
        await asyncio.sleep(SETTLED)
        gateway, bucket = idle.gateways[0], idle.buckets[0]
        folder = idle.folders()[0]
        keys = FolderKeys.of(folder.record.folder_id)
        for key in (keys.segment(folder.position), *bucket.store.keys(keys.checkpoints)):
            del bucket.store.objects[key]
        PeerDevice(device(100), folder).connect()
        await asyncio.sleep(1)
        healed = gateway.folders.get(folder.record.folder_id)
        assert healed is not None and healed is not folder
        assert healed.own_index.index_id != folder.own_index.index_id
        assert healed.own_index.max_sequence >= ENTRIES


async def test_work_that_is_under_way_is_as_good_as_a_device(tmp_path: Path) -> None:
    """What a device has left behind is written, and others' segments are looked for until then."""
    async with idle_gateways(tmp_path) as idle:
        folder = idle.folders()[0]
        peer = PeerDevice(device(100), folder)
        peer.connect()
        await asyncio.sleep(SETTLED)
        bucket = idle.buckets[0]
        bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" and "/log/" in call.key else None
        raw = directory("new", sequence=1).raw
        await folder.take_index(peer.device_id, 7, IndexReceived("f0", (raw,), True, 1, 0))
        await asyncio.sleep(1)
        await peer.disconnect()
        await asyncio.sleep(SETTLED)
        begun = len(bucket.calls)
        await asyncio.sleep(10 * LogSettings().poll_interval)
        assert sum(call.operation == "get" and "f0/log/" in call.key for call in bucket.calls[begun:]) >= 10
        bucket.fault = lambda call: None
        await asyncio.sleep(LogSettings().max_append_delay)
        assert folder.own_index.max_sequence == ENTRIES + 1
        await asyncio.sleep(2 * LogSettings().cursor_interval)
        assert folder.handled(peer.device_id) == IndexState(7, 1), "its cursor is written, too"


@pytest.mark.parametrize("idle_first", [False, True])
async def test_heartbeats_are_fresh(tmp_path: Path, idle_first: bool) -> None:
    """A program from before sees that a gateway with devices runs, one of today sees any."""
    async with idle_gateways(tmp_path) as idle:
        if not idle_first:
            PeerDevice(device(100), idle.folders()[0]).connect()
        await asyncio.sleep(SETTLED)
        ages = []
        for _ in range(400):
            await asyncio.sleep(1.0)
            (key,) = idle.store.keys("nodes/")
            ages.append(idle.store.age(key))
    assert max(ages) <= (151.0 if idle_first else 76.0)
