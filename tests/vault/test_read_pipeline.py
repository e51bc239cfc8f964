"""The pipeline that reads objects: results in order, bounded memory, and no deadlock."""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.waiting import PATIENCE
from untrusted_s3.errors import DataError
from untrusted_s3.settings import ReadSettings
from untrusted_s3.vault.read_pipeline import ReadPipeline


class Range(NamedTuple):
    number: int
    size: int


class Result(NamedTuple):
    number: int
    memory: int


async def get(wanted: Range) -> bytes:
    await asyncio.sleep(0)
    return bytes(wanted.size)


def process(wanted: Range, data: bytes) -> Result:
    assert len(data) == wanted.size
    return Result(wanted.number, wanted.size)


def ranges(sizes: list[int]) -> list[Range]:
    return [Range(number, size) for number, size in enumerate(sizes)]


async def test_a_small_range_does_not_hold_what_an_earlier_one_waits_for() -> None:
    """As for a file of 37 MB, whose ranges have 16, 16 and 5 MB, and 64 MB of memory."""
    async with ReadPipeline(ReadSettings(memory=64)) as pipeline, asyncio.timeout(PATIENCE):
        results = [result.number async for result in pipeline.read(ranges([16, 16, 5]), get, process)]
    assert results == [0, 1, 2]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(1, 100), max_size=8), max_size=5),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([0, 50, 1000]),
)
def test_any_readings_end_within_the_memory(
    readings: list[list[int]], memory: int, ahead: int, gets: int, small: int
) -> None:
    async def play() -> None:
        reading = ReadSettings(memory=memory, threads=2, read_ahead=ahead, concurrent_reads=gets, small_read_size=small)
        async with ReadPipeline(reading) as pipeline, asyncio.timeout(PATIENCE):

            async def consume(sizes: list[int]) -> None:
                numbers = []
                async for result in pipeline.read(ranges(sizes), get, process):
                    numbers.append(result.number)
                    await asyncio.sleep(0)
                assert numbers == list(range(len(sizes)))

            await asyncio.gather(*map(consume, readings))
            assert pipeline.memory_used == 0
            largest = sum(2 * max(sizes, default=0) for sizes in readings)
            assert pipeline.most_memory_used <= memory + largest

    asyncio.run(play())


async def test_a_consumer_that_stops_keeps_nobody_waiting() -> None:
    async with ReadPipeline(ReadSettings(memory=100)) as pipeline, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            stalled = await stack.enter_async_context(
                contextlib.aclosing(pipeline.read(ranges([50] * 9), get, process))
            )
            assert (await anext(stalled)).number == 0
        async with asyncio.timeout(PATIENCE):
            assert len([result async for result in pipeline.read(ranges([50] * 9), get, process)]) == 9
    assert pipeline.memory_used == 0


async def test_what_fails_is_raised_after_the_results_before_it() -> None:
    def fail_at_the_third(wanted: Range, data: bytes) -> Result:
        if wanted.number == 2:
            raise DataError("the third")
        return process(wanted, data)

    found = []
    async with ReadPipeline(ReadSettings(memory=1000, small_read_size=0)) as pipeline:
        with pytest.raises(DataError, match="the third"):
            async for result in pipeline.read(ranges([10] * 9), get, fail_at_the_third):
                found.append(result.number)
        assert pipeline.memory_used == 0
    assert found == [0, 1]


def test_ranges_are_smaller_where_memory_is() -> None:
    assert ReadPipeline(ReadSettings(memory=1600, read_size=1000)).read_size == 100
    assert ReadPipeline(ReadSettings(memory=1600, read_size=99)).read_size == 99
    assert ReadPipeline(ReadSettings(memory=1, read_size=99)).read_size == 1
