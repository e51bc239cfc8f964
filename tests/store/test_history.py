"""How much history is kept: one value for all gateways."""

from __future__ import annotations

import math

import pytest

from tests.simulated import SimulatedBucket, SimulatedClock
from untrusted_s3.errors import DataError
from untrusted_s3.store import layout
from untrusted_s3.store.history import History, read_history, settle_history, write_history
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import DAY

KEYS = FolderKeys.of("folder")


async def test_a_folder_has_that_of_the_store_or_its_own() -> None:
    bucket = SimulatedBucket()
    now = int(bucket.now())
    assert await read_history(bucket, KEYS) is None
    await write_history(bucket, None, 60)
    assert await read_history(bucket, KEYS) == History(60, now)
    await write_history(bucket, KEYS, 7)
    assert await read_history(bucket, KEYS) == History(7, now, is_own=True)
    assert await read_history(bucket, None) == History(60, now)
    assert set(bucket.store.objects) == {layout.HISTORY, KEYS.history}
    for wrong in (b"{", b'{"days": 0, "time": 0}', b'{"days": "7", "time": 0}', b'{"days": 7}'):
        bucket.store.put(KEYS.history, wrong)
        with pytest.raises(DataError):
            await read_history(bucket, KEYS)


async def test_a_change_takes_effect_after_a_day() -> None:
    bucket = SimulatedBucket()
    clock = bucket.store.clock
    assert isinstance(clock, SimulatedClock)
    await write_history(bucket, None, 7)
    found = await read_history(bucket, None)
    assert found is not None
    assert found.seconds(clock() - 600) == found.seconds(clock() + 0.99 * DAY) == math.inf
    assert found.seconds(clock() + DAY) == 7 * DAY


@pytest.mark.parametrize(
    ("before", "wanted", "is_wanted", "after"),
    [
        (None, 30, False, 30),
        (None, 7, True, 7),
        (60, 30, False, 60),
        (60, 30, True, 60),
        (30, 60, True, 60),
        (7, 30, False, 7),
    ],
)
async def test_gateways_agree(before: int | None, wanted: int, is_wanted: bool, after: int) -> None:
    """The first one decides, later ones may keep more, and none shortens what another one promises."""
    bucket = SimulatedBucket()
    if before is not None:
        bucket.store.put(layout.HISTORY, b'{"days": %d, "time": 0}' % before)
    for _ in range(2):
        assert (await settle_history(bucket, wanted, is_wanted=is_wanted)).days == after
    found = await read_history(bucket, None)
    assert found is not None and found.days == after
    assert (found.time > 0) == (before is not None and before != after), "what holds from the beginning holds at once"
    assert bucket.count("put") == (before != after)
