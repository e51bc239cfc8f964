"""Work on many items: bounded, lazy, and ended by the first failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.virtual_time import virtual_time
from untrusted_s3.vault.concurrency import for_each


@virtual_time
async def test_no_more_than_so_many_at_once_and_each_item_once() -> None:
    running = most = 0
    done = []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        done.append(item)

    await for_each(iter(range(20)), work, 3)
    assert sorted(done) == list(range(20))
    assert most == 3


async def test_items_are_taken_when_it_is_their_turn() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    async def work(item: int) -> None:
        if item == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match="five"):
        await for_each(items(), work, 2)
    assert taken < 10


async def test_a_failure_cancels_the_rest() -> None:
    cancelled = asyncio.Event()

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(ValueError, match="one"):
        await for_each([0, 1], work, 2)
    assert cancelled.is_set()
