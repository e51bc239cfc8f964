"""When the present objects of folders are listed."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulated import Fault, SimulatedBucket
from untrusted_s3.errors import StateDamaged
from untrusted_s3.gateway.present_lists import PresentLists
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store.layout import FolderKeys


class FakeFolder:
    """A folder that writes only the head of its list."""

    def __init__(self, bucket: SimulatedBucket, folder_id: str, position: int) -> None:
        self.position = position
        self.written = 0
        self.error: Exception | None = None
        self._bucket = bucket
        self._key = FolderKeys.of(folder_id).present_objects

    async def list_present_objects(self) -> int:
        if self.error is not None:
            raise self.error
        self.written += 1
        await self._bucket.put(self._key, [b"# position=%d time=now\n" % self.position])
        return self.position


class FakeFolders(dict[str, FakeFolder]):
    def by_id(self) -> list[tuple[str, FakeFolder]]:
        return sorted(self.items())


async def test_what_has_changed_is_listed_once() -> None:
    bucket = SimulatedBucket()
    folders = FakeFolders(a=FakeFolder(bucket, "a", 3), b=FakeFolder(bucket, "b", 0))
    first, second = (PresentLists(bucket, folders, UpkeepSettings()) for _ in range(2))
    for lists in (first, second, first):
        await lists.turn()
    assert [folder.written for folder in folders.values()] == [1, 0]
    bucket.store.objects.clear()
    await first.turn()
    assert folders["a"].written == 2, "the store has lost it"
    folders["a"].written = 1
    folders["b"].position = 1
    folders["a"].error = StateDamaged("damaged")
    folders["a"].position = 4
    await second.turn()
    folders["a"].error = None
    bucket.fault = lambda call: Fault.UNREACHABLE
    await second.turn()
    bucket.fault = lambda call: None
    await second.turn()
    assert [folder.written for folder in folders.values()] == [2, 1]


async def test_turns_come_soon_and_then_once_a_day() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await PresentLists(SimulatedBucket(), FakeFolders(), UpkeepSettings(), sleep).run()
    assert 450 <= waited[0] <= 1350 and all(12 * 3600 <= one <= 36 * 3600 for one in waited[1:])
