"""States that are kept beyond the history: they can be read, keep their objects, and rules are changed with care."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.file_infos import encrypted_name
from tests.loops import one_loop
from tests.upkeep.stored import KEYS, Stored
from untrusted_s3.errors import BeforeHistory
from untrusted_s3.index.history import load_as_of
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import plan_trim, trim
from untrusted_s3.store.listing import list_kept
from untrusted_s3.store.retention import KeepRules, read_rules, write_rules
from untrusted_s3.units import DAY
from untrusted_s3.vault.versions import read_versions

pytestmark = one_loop

HISTORY = 2 * DAY


class Keeping(Stored):
    """A folder in which one file changes every day."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory
        self.day = 0

    async def live(self, days: int) -> None:
        """Let days pass, with a change, a checkpoint and upkeep on each."""
        for _ in range(days):
            self.day += 1
            await self.write(("f", self.day))
            await self.log.checkpoint()
            self.pass_days(1)
            await self.upkeep()

    async def upkeep(self) -> None:
        await trim(self.bucket, KEYS, HISTORY, keep=await read_rules(self.bucket, KEYS), clock=self.clock)
        await self.collector().collect()

    async def as_of(self, days_ago: float) -> int:
        """Return the version that the file had so many days ago, as far as that is known."""
        state = FolderState(self.directory / "then.sqlite")
        try:
            state.clear()
            await load_as_of(self.bucket, KEYS, state, int((self.clock.now - days_ago * DAY) * 1000))
            entry = state.entry(encrypted_name("f"))
            assert entry is not None and entry.stored is not None
            assert KEYS.object(encrypted_name("f"), entry.stored.object_name) in self.objects
            return entry.file_info.message.version.counters[0].value
        finally:
            state.close()


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    keeping = Keeping(tmp_path)
    yield keeping
    keeping.state.close()


async def test_states_are_kept_by_the_rules_with_their_objects(keeping: Keeping) -> None:
    await write_rules(keeping.bucket, None, KeepRules(daily=5, monthly=3))
    await keeping.live(50)  # until the beginning of January
    times = sorted(seconds for _, seconds in (await list_kept(keeping.bucket, KEYS)).values())
    assert 3 <= len(times) <= 5
    # Those of the last days, the ends of two months, and what is not deleted yet.
    assert 6 <= len(keeping.objects) <= 13
    assert await keeping.as_of(0.5) == 50
    assert await keeping.as_of(4.5) == 46
    oldest = (keeping.clock.now - times[0]) / DAY
    assert oldest > 30
    assert await keeping.as_of(oldest - 0.5) == await keeping.as_of(10) == 50 - round(oldest) + 1
    with pytest.raises(BeforeHistory):
        await keeping.as_of(oldest + 1.5)
    versions = [entry async for _, entry, _ in read_versions(keeping.bucket, KEYS, encrypted_name("f"))]
    numbers = [entry.file_info.message.version.counters[0].value for entry in versions]
    assert numbers == sorted(numbers) and 5 <= len(numbers) <= 10


async def test_without_rules_nothing_is_kept_beyond_the_history(keeping: Keeping) -> None:
    await keeping.live(10)
    assert await list_kept(keeping.bucket, KEYS) == {}
    with pytest.raises(BeforeHistory):
        await keeping.as_of(8)


async def test_for_a_day_after_a_change_of_the_rules_nothing_is_deleted(keeping: Keeping) -> None:
    await write_rules(keeping.bucket, None, KeepRules(daily=30))
    await keeping.live(20)
    before = await list_kept(keeping.bucket, KEYS)
    assert len(before) > 10
    await write_rules(keeping.bucket, KEYS, KeepRules(daily=5))
    ages = {1: 0.0}
    assert not (await plan_trim(keeping.bucket, KEYS, ages, HISTORY, await read_rules(keeping.bucket, KEYS))).to_drop
    keeping.pass_days(0.9)
    await keeping.upkeep()
    assert before.keys() <= (await list_kept(keeping.bucket, KEYS)).keys()
    assert await keeping.as_of(15) == 20 - 15 + 1
    keeping.pass_days(0.2)
    await keeping.upkeep()
    assert len(await list_kept(keeping.bucket, KEYS)) <= 5
    objects = len(keeping.objects)
    assert objects > 15, "the data are there for another day at least"
    await keeping.live(4)
    assert len(keeping.objects) < 13


async def test_a_look_says_what_leaves_with_the_rules(keeping: Keeping) -> None:
    await write_rules(keeping.bucket, None, KeepRules(daily=30))
    await keeping.live(20)
    await write_rules(keeping.bucket, None, KeepRules())
    keeping.pass_days(1.1)
    keep = await read_rules(keeping.bucket, KEYS)
    look = await keeping.collector().look(lambda ages: plan_trim(keeping.bucket, KEYS, ages, HISTORY, keep))
    assert look.found.objects > 10
    await keeping.upkeep()
    assert (await keeping.collector().collect(always=True)).waiting.objects >= look.found.objects
