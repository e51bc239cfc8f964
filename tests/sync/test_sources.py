"""Which peer is asked for a block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_infos import device, file
from tests.sync.fakes import FakeSource, announced
from tests.virtual_time import virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.sources import Sources

A, B, C = device(1), device(2), device(3)
INFO = file("a", 2, sizes=(1064,) * 4, sequence=1)
BLOCKS = INFO.message.blocks


class Asking:
    """The sources of a folder, and what is pending in it."""

    def __init__(self, directory: Path) -> None:
        self.pending = PendingIndex(directory / "pending.sqlite")
        self.sources = Sources("folder", self.pending)

    def announce(self, one: DeviceID, info: FileInfo = INFO) -> Pending:
        self.pending.add(one, IndexState(7, 1), [announced(info)], [])
        return self.pending.after(one, 0, 1)[0]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    opened = Asking(tmp_path)
    yield opened
    opened.pending.close()


async def test_the_peers_that_announce_the_version_take_turns(asking: Asking) -> None:
    peers = {A: FakeSource(), B: FakeSource(), C: FakeSource()}
    for one, source in peers.items():
        asking.sources.add(one, source)
        entry = asking.announce(one, INFO if one != C else file("a", 2, sizes=(1064,) * 4, sequence=1, content=1))
    fetch = asking.sources.fetcher(asking.announce(A), INFO.name)
    for number, block in enumerate(BLOCKS):
        assert len(await fetch(number, block)) == 1064
    assert (peers[A].asked_for("a"), peers[B].asked_for("a")) in (([0, 2], [1, 3]), ([1, 3], [0, 2]))
    assert not peers[C].asked, "it announces another content, with the same number by accident"
    assert entry.device_id == C


async def test_a_peer_that_has_the_content_under_another_number_is_asked(asking: Asking) -> None:
    """The author of the version may be gone for good, and another device may have made the same content."""
    gone, source = asking.announce(A), FakeSource()
    asking.announce(B, file("a", 1, sizes=(1064,) * 4, sequence=1))
    asking.sources.add(B, source)
    assert len(await asking.sources.fetcher(gone, INFO.name)(0, BLOCKS[0])) == 1064
    asking.sources.add(B, source, trusted=False)
    with pytest.raises(BlockUnavailable, match="no connected peer has it"):
        await asking.sources.fetcher(gone, INFO.name)(0, BLOCKS[0])


async def test_one_peer_after_the_other_is_asked_for_a_block(asking: Asking) -> None:
    peers = [FakeSource(), FakeSource()]
    for one, source in zip((A, B), peers, strict=True):
        source.lacks = {INFO.name}
        asking.sources.add(one, source)
        asking.announce(one)
    fetch = asking.sources.fetcher(asking.announce(A), INFO.name)
    with pytest.raises(BlockUnavailable, match="block 3: no such file"):
        await fetch(3, BLOCKS[3])
    assert [source.asked_for("a") for source in peers] == [[3], [3]]


async def test_a_peer_that_comes_later_is_asked(asking: Asking) -> None:
    fetch = asking.sources.fetcher(asking.announce(A), INFO.name)
    with pytest.raises(BlockUnavailable, match="no connected peer has it"):
        await fetch(0, BLOCKS[0])
    source = FakeSource()
    asking.sources.add(B, source)
    with pytest.raises(BlockUnavailable, match="no connected peer has it"):
        await fetch(0, BLOCKS[0])
    asking.announce(B)
    assert len(await fetch(0, BLOCKS[0])) == 1064


async def test_the_last_connection_of_a_device_counts(asking: Asking) -> None:
    old, new = FakeSource(), FakeSource()
    asking.sources.add(A, old)
    asking.sources.add(A, new)
    assert not asking.sources.remove(A, old)
    assert asking.sources.connected == {A: new}
    assert asking.sources.remove(A, new)
    assert not asking.sources.connected


@virtual_time
async def test_a_peer_that_gives_nothing_holds_up_no_file_that_another_one_has(asking: Asking) -> None:
    stalled, good = FakeSource(), FakeSource()
    stalled.go_on.clear()
    for one, source in ((A, stalled), (B, good)):
        asking.sources.add(one, source)
        entry = asking.announce(one)
    fetch = asking.sources.fetcher(entry, INFO.name)
    for number, block in enumerate(BLOCKS):
        assert len(await fetch(number, block)) == 1064
    assert asyncio.get_running_loop().time() <= SyncSettings().second_source_after + 1
    assert len(stalled.asked) == 1, "it is not asked again while another one gives the file"
    assert good.asked_for("a") == [0, 1, 2, 3]


@virtual_time
async def test_a_slow_peer_is_waited_for_where_no_other_one_gives_the_block(asking: Asking) -> None:
    slow, lacking = FakeSource(), FakeSource()
    slow.go_on.clear()
    lacking.lacks = {INFO.name}
    for one, source in ((A, slow), (B, lacking)):
        asking.sources.add(one, source)
        entry = asking.announce(one)
    fetch = asking.sources.fetcher(entry, INFO.name)
    fetched = [asyncio.ensure_future(fetch(number, block)) for number, block in enumerate(BLOCKS)]
    await asyncio.sleep(100)
    assert not any(task.done() for task in fetched)
    slow.go_on.set()
    assert [len(data) for data in await asyncio.gather(*fetched)] == [1064] * 4


@virtual_time
async def test_a_pull_that_ends_leaves_no_request_behind(asking: Asking) -> None:
    peers = [FakeSource(), FakeSource()]
    for one, source in zip((A, B), peers, strict=True):
        source.go_on.clear()
        asking.sources.add(one, source)
        entry = asking.announce(one)
    pull = asyncio.ensure_future(asking.sources.fetcher(entry, INFO.name)(0, BLOCKS[0]))
    await asyncio.sleep(100)
    assert [len(source.asked) for source in peers] == [1, 1]
    pull.cancel()
    await asyncio.wait([pull])
    assert len(asyncio.all_tasks()) == 1
