"""What untrusted devices announce and give, beside trusted ones: it comes last, and it hides nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import deleted, device, directory, encrypted_name, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import FakeSource, Pulling, running
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.objects.naming import content_hash, has_untrusted_blocks
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.layout import FolderKeys

pytestmark = virtual_time

ALICE, BOB, EQUAL, OTHER_EQUAL = device(1), device(2), device(3), device(4)
NEVER = 10**9
SETTINGS = SyncSettings()
GRID = PartGrid(single_put_size=4000, min_part_size=4096)


class GarbageSource(FakeSource):
    """A peer that gives made-up blocks of the right size."""

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        return memoryview(bytes(len(await super().request_block(folder_id, name, number, block))))


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Pulling]:
    async with running(Pulling(tmp_path, SimulatedBucket(), grid=GRID)) as pulling:
        yield pulling


def body_of(folder: Pulling, number: int = -1) -> bytes:
    """Return the data of an entry that was committed."""
    entry = folder.committed[number]
    assert entry.stored is not None
    key = FolderKeys.of("folder").object(entry.file_info.name, entry.stored.object_name)
    return folder.bucket.store.body(key)[: entry.file_info.message.size]


def is_garbage(folder: Pulling, number: int = -1) -> bool:
    return not any(body_of(folder, number))


def names_of(folder: Pulling) -> list[str]:
    return [entry.stored.object_name for entry in folder.committed if entry.stored]


async def test_an_untrusted_device_is_not_asked_while_a_trusted_one_has_the_version(folder: Pulling) -> None:
    info = file("a", sizes=(1064,) * 10, sequence=1)
    alice, bob, equal = FakeSource(), FakeSource(), GarbageSource()
    folder.puller.add_source(EQUAL, equal, trusted=False)
    for one, source in ((ALICE, alice), (BOB, bob)):
        folder.puller.add_source(one, source)
    for one in (EQUAL, ALICE, BOB):
        folder.announce(one, info)
    await settled()
    assert folder.versions("a") == [1]
    assert len(alice.asked) == len(bob.asked) == 5 and not equal.asked
    assert names_of(folder) == [content_hash(info)]


async def test_the_version_of_an_author_who_is_gone_comes_from_the_untrusted_device(folder: Pulling) -> None:
    info = file("a", sequence=1)
    folder.announce(ALICE, info)  # it is not connected
    folder.puller.add_source(BOB, FakeSource())
    folder.puller.add_source(EQUAL, FakeSource(), trusted=False)
    folder.announce(EQUAL, info)
    await settled()
    assert folder.versions("a") == [1]
    assert names_of(folder) == [f"{content_hash(info)}-u{EQUAL.raw[:8].hex()}"]
    assert folder.committed[0].source == EQUAL


async def test_what_a_connected_trusted_device_does_not_give_comes_from_the_untrusted_one(folder: Pulling) -> None:
    info = file("a", sequence=1)
    alice, equal = FakeSource(), FakeSource()
    alice.lacks = {info.name}
    folder.puller.add_source(ALICE, alice)
    folder.puller.add_source(EQUAL, equal, trusted=False)
    folder.announce(EQUAL, info)
    folder.announce(ALICE, info)
    await settled()
    assert folder.versions("a") == [1]
    assert has_untrusted_blocks(names_of(folder)[0])
    assert (len(alice.asked), len(equal.asked)) == (1, 1)
    assert folder.committed[0].source == EQUAL, "the data are the untrusted device's, not the announcer's"


async def test_each_untrusted_device_is_asked_by_itself(folder: Pulling) -> None:
    info = file("a", sizes=(1064,) * 3, sequence=1)
    one, other = FakeSource(), FakeSource()
    one.lacks = {info.name}
    for device_id, source in ((EQUAL, one), (OTHER_EQUAL, other)):
        folder.puller.add_source(device_id, source, trusted=False)
        folder.announce(device_id, info)
    await settled()
    assert names_of(folder) == [f"{content_hash(info)}-u{OTHER_EQUAL.raw[:8].hex()}"]
    assert other.asked_for("a") == [0, 1, 2], "no block is taken from one and counted for the other"


async def test_a_trusted_device_that_goes_during_a_pull_is_waited_for(folder: Pulling) -> None:
    info = file("a", sequence=1)
    alice, equal = FakeSource(), FakeSource()
    alice.go_on.clear()
    folder.puller.add_source(ALICE, alice)
    folder.puller.add_source(EQUAL, equal, trusted=False)
    folder.announce(ALICE, info)
    folder.announce(EQUAL, info)
    await settled()
    folder.puller.remove_source(ALICE, alice)
    alice.lacks = {info.name}
    alice.go_on.set()
    await settled()
    assert not equal.asked
    folder.puller.add_source(ALICE, FakeSource())
    await settled()
    assert names_of(folder) == [content_hash(info)] and not equal.asked


@pytest.mark.parametrize("sizes", [(1064,), (1064,) * 4], ids=["small", "large"])
async def test_a_touch_by_a_trusted_device_heals_garbage(folder: Pulling, sizes: tuple[int, ...]) -> None:
    folder.puller.add_source(EQUAL, GarbageSource(), trusted=False)
    folder.announce(EQUAL, file("a", 1, sizes=sizes, sequence=1))
    await settled()
    assert is_garbage(folder)
    folder.puller.add_source(ALICE, FakeSource())
    folder.announce(ALICE, file("a", 2, sizes=sizes, sequence=1))
    await settled()
    assert folder.versions("a") == [1, 2]
    assert not is_garbage(folder)
    asked = len(folder.bucket.calls)
    folder.announce(ALICE, file("a", 3, sizes=sizes, sequence=2))
    await settled()
    assert folder.versions("a") == [1, 2, 3]
    assert len(folder.bucket.calls) == asked, "what a trusted device gave is not fetched again"


@pytest.mark.parametrize("sizes", [(1064,), (1064,) * 4], ids=["small", "large"])
async def test_a_file_that_is_made_again_by_a_trusted_device_is_fetched(
    folder: Pulling, sizes: tuple[int, ...]
) -> None:
    folder.puller.add_source(EQUAL, GarbageSource(), trusted=False)
    folder.announce(EQUAL, file("a", 1, sizes=sizes, sequence=1))
    await settled()
    folder.puller.add_source(ALICE, FakeSource())
    for info in (deleted("a", 2, sequence=1), file("a", 3, sizes=sizes, sequence=2)):
        folder.announce(ALICE, info)
        await settled()
    assert folder.versions("a") == [1, 2, 3]
    assert not is_garbage(folder)


async def test_no_unchanged_part_of_a_trusted_devices_file_comes_from_an_untrusted_one(folder: Pulling) -> None:
    before = file("a", 1, sizes=(4096,) * 4, sequence=1)
    message = pb.FileInfo.FromString(file("a", 2, sizes=(4096,) * 4, sequence=1, content=1).raw)
    for number in range(3):
        message.blocks[number].CopyFrom(before.message.blocks[number])
    folder.puller.add_source(EQUAL, GarbageSource(), trusted=False)
    folder.announce(EQUAL, before)
    await settled()
    alice = FakeSource()
    folder.puller.add_source(ALICE, alice)
    folder.announce(ALICE, FileInfo(message.SerializeToString(), message))
    await settled()
    assert folder.versions("a") == [1, 2]
    assert sorted(alice.asked_for("a")) == [0, 1, 2, 3]
    assert 0 not in {sum(body_of(folder)[start : start + 4096]) for start in range(0, 4 * 4096, 4096)}


@pytest.mark.parametrize("sizes", [(1064,), (1064,) * 4], ids=["small", "large"])
@pytest.mark.parametrize("answers", [True, False], ids=["no such file", "no answer"])
@pytest.mark.parametrize("comes_first", [True, False])
async def test_a_version_that_is_never_served_hides_no_honest_one(
    folder: Pulling, sizes: tuple[int, ...], answers: bool, comes_first: bool
) -> None:
    equal = FakeSource()
    equal.lacks = {encrypted_name("a")}
    if not answers:
        equal.go_on.clear()
    forged, honest = file("a", NEVER, sizes=sizes, sequence=1, content=9), file("a", 5, sizes=sizes, sequence=1)
    folder.puller.add_source(ALICE, FakeSource())
    folder.puller.add_source(EQUAL, equal, trusted=False)
    for one, info in [(EQUAL, forged), (ALICE, honest)] if comes_first else [(ALICE, honest), (EQUAL, forged)]:
        folder.announce(one, info)
        await settled()
    assert folder.versions("a") == [5]
    folder.announce(ALICE, file("a", 6, sizes=sizes, sequence=2, content=2))
    await settled()
    assert folder.versions("a") == [5, 6]
    if answers:
        await asyncio.sleep(100)
        count, failure = folder.puller.failing
        assert count == 1 and failure is not None and "no such file" in str(failure.error)
        assert failure.devices == {EQUAL}
        assert 2 <= equal.asked_for("a").count(0) < 10, "it is tried again, ever more rarely"
        equal.lacks = set()
        await asyncio.sleep(SETTINGS.max_failure_interval)
        assert folder.versions("a") == [5, 6, NEVER], "what is served in the end is taken"


async def test_a_large_file_of_an_untrusted_device_that_waits_for_its_turn_hides_nothing(tmp_path: Path) -> None:
    settings = SyncSettings(concurrent_large_files=1)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings, grid=GRID)) as folder:
        equal = FakeSource()
        equal.go_on.clear()
        folder.puller.add_source(EQUAL, equal, trusted=False)
        sizes = (1064,) * 4
        folder.announce(EQUAL, file("b", NEVER, sizes=sizes, sequence=1), file("a", NEVER, sizes=sizes, sequence=2))
        await settled()
        folder.puller.add_source(ALICE, FakeSource())
        folder.announce(ALICE, file("a", 1, sequence=1))
        await settled()
        assert folder.versions("a") == [1]
        assert not equal.asked_for("a")


async def test_a_trusted_version_that_cannot_be_had_does_not_stop_that_of_an_untrusted_device(folder: Pulling) -> None:
    """An old version that its device cannot read any more, and a new one from an author who is gone."""
    alice, equal = FakeSource(), FakeSource()
    alice.lacks = {encrypted_name("a")}
    folder.puller.add_source(ALICE, alice)
    folder.puller.add_source(EQUAL, equal, trusted=False)
    folder.announce(ALICE, file("a", 1, sequence=1))
    folder.announce(EQUAL, file("a", 2, sequence=1, content=1))
    await settled()
    assert folder.versions("a") == [2]


async def test_a_trusted_devices_version_that_is_never_served_hides_an_older_one_for_a_while_only(
    folder: Pulling,
) -> None:
    alice = FakeSource()
    alice.lacks = {encrypted_name("a")}
    folder.puller.add_source(ALICE, alice)
    folder.puller.add_source(BOB, FakeSource())
    folder.announce(ALICE, file("a", 2, sequence=1, content=1))
    folder.announce(BOB, file("a", 1, sequence=1))
    await settled()
    assert folder.versions("a") == []
    await asyncio.sleep(60)
    assert folder.versions("a") == [1]


async def test_a_forged_file_info_of_the_same_version_does_not_come_before_the_honest_one(folder: Pulling) -> None:
    """Both are announced at about the same time. Nothing but the order tells a directory or a deletion apart."""
    folder.puller.add_source(ALICE, FakeSource())
    folder.puller.add_source(EQUAL, FakeSource(), trusted=False)
    for sequence, make in enumerate((directory, deleted), 1):
        honest = make(make.__name__, 3, sequence=sequence)
        message = pb.FileInfo.FromString(honest.raw)
        message.encrypted = b"garbage" * 30
        folder.announce(EQUAL, FileInfo(message.SerializeToString(), message))
        folder.announce(ALICE, honest)
        await settled()
        assert folder.committed[-1].file_info == honest


@pytest.mark.parametrize("seed", range(20))
async def test_honest_versions_are_stored_whatever_an_untrusted_device_announces(seed: int, tmp_path: Path) -> None:
    """It never serves anything: it refuses, or does not answer. Devices come and go."""
    dice = random.Random(seed)
    settings = SyncSettings(concurrent_large_files=8)
    async with running(Pulling(tmp_path, SimulatedBucket(), settings=settings, grid=GRID)) as folder:
        sources: dict[DeviceID, FakeSource] = {one: FakeSource() for one in (ALICE, BOB, EQUAL, OTHER_EQUAL)}
        sequences = dict.fromkeys(sources, 0)
        newest: dict[int, int] = {}
        sources[EQUAL].lacks = sources[OTHER_EQUAL].lacks = {encrypted_name(number) for number in range(4)}
        for _ in range(60):
            one = dice.choice(list(sources))
            trusted = one in (ALICE, BOB)
            source, name = sources[one], dice.randrange(4)
            match dice.randrange(5):
                case 0:
                    folder.puller.add_source(one, source, trusted=trusted)
                case 1:
                    folder.puller.remove_source(one, source)
                case 2 if not trusted:
                    dice.choice([source.go_on.clear, source.go_on.set])()
                case 3:
                    await asyncio.sleep(dice.choice([0.1, 3, 20]))
                case _:
                    version = newest.get(name, 0) + 1
                    if trusted:
                        newest[name] = version
                    else:
                        version += dice.choice([0, 0, 1, NEVER])
                    sequences[one] += 1
                    sizes = (1064,) * dice.choice([1, 5])
                    content = version if trusted else 99
                    folder.announce(one, file(name, version, sizes=sizes, sequence=sequences[one], content=content))
            await settled()
        for one in (ALICE, BOB):
            folder.puller.add_source(one, sources[one])
        await asyncio.sleep(300)
        for name, version in newest.items():
            assert folder.versions(name)[-1:] == [version]
        assert not any(map(has_untrusted_blocks, names_of(folder)))


async def test_an_untrusted_device_that_gives_what_it_announces_is_as_good_as_any(folder: Pulling) -> None:
    """Trusted devices that are never online together meet through it."""
    equal = FakeSource()
    folder.puller.add_source(EQUAL, equal, trusted=False)
    folder.puller.add_source(BOB, FakeSource())
    folder.announce(BOB, file("b", 1, sequence=1))
    folder.announce(EQUAL, file("a", 1, sequence=1), deleted("b", 2, sequence=2), directory("d", sequence=3))
    await settled()
    assert folder.versions("a") == [1] and folder.versions("b") == [1, 2] and folder.versions("d") == [1]
    sources = {(change.file_info.name, change.file_info.message.deleted): change.source for change in folder.committed}
    assert sources == {
        (encrypted_name("b"), False): BOB,
        (encrypted_name("a"), False): EQUAL,
        (encrypted_name("b"), True): EQUAL,
        (encrypted_name("d"), False): EQUAL,
    }
    assert folder.pending.totals == (0, 0)


async def test_a_device_that_shares_as_a_trusted_one_again_is_trusted(folder: Pulling) -> None:
    source = FakeSource()
    folder.puller.add_source(EQUAL, source, trusted=False)
    folder.puller.remove_source(EQUAL, source)
    assert not folder.puller.sources.is_trusted(EQUAL)
    folder.puller.add_source(EQUAL, source)
    assert folder.puller.sources.is_trusted(EQUAL)
