"""Segments are read in order, several at once, up to the end of the log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.file_infos import device, entry, file
from tests.index.gateways import KEYS, SimulatedGateway, contents
from tests.simulated import Call, Fault, SimulatedBucket, SimulatedClock, SimulatedStore
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import DataError, StoreUnreachable
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment, encode_segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.settings import LogSettings

DEPTH = 4


def segment(position: int) -> Segment:
    return Segment(device(1), bytes(16), 1000 * position, position, (entry(file(position)),), ())


def log_of(*positions: int) -> SimulatedStore:
    store = SimulatedStore()
    for position in positions:
        store.put(KEYS.segment(position), encode_segment(segment(position)))
    return store


def reader_of(bucket: SimulatedBucket) -> SegmentReader:
    return SegmentReader(bucket, KEYS, LogSettings(read_ahead=DEPTH), bucket.store.clock)


async def read_after(bucket: SimulatedBucket, position: int, depth: int | None = None) -> list[Segment | None]:
    return [found.segment async for found in reader_of(bucket).read_after(position, depth)]


def failing_at(position: int) -> SimulatedBucket:
    def fault(call: Call) -> Fault | None:
        return Fault.UNREACHABLE if call.key == KEYS.segment(position) else None

    return SimulatedBucket(log_of(1, 2, 3), fault=fault)


async def test_one_segment() -> None:
    store = log_of(3)
    found = await reader_of(SimulatedBucket(store)).read(3)
    assert (found.position, found.segment) == (3, segment(3))
    assert found.size == len(store.body(KEYS.segment(3)))
    assert (await reader_of(SimulatedBucket(store)).read(2)).segment is None


async def test_a_look_counts_from_before_its_request() -> None:
    clock = SimulatedClock()
    store = SimulatedStore(clock)

    async def gate(call: Call, phase: object) -> None:
        clock.now += 10

    before = clock.now
    assert (await reader_of(SimulatedBucket(store, gate=gate)).read(1)).asked_at == before
    assert clock.now > before


@pytest.mark.parametrize("depth", [1, 3, None])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
async def test_all_segments_and_the_end(count: int, depth: int | None) -> None:
    bucket = SimulatedBucket(log_of(*range(1, count + 1)))
    assert await read_after(bucket, 0, depth) == [*map(segment, range(1, count + 1)), None]
    assert bucket.count("get") <= count + (depth or DEPTH)


async def test_an_empty_segment_is_not_the_end() -> None:
    store = log_of(1, 3)
    store.put(KEYS.segment(2), b"")
    assert await read_after(SimulatedBucket(store), 1) == [EMPTY_SEGMENT, segment(3), None]


async def test_segments_after_a_gap_are_not_read_on() -> None:
    assert await read_after(SimulatedBucket(log_of(1, 3)), 0) == [segment(1), None]


async def test_an_error_comes_after_the_segments_before_it() -> None:
    read = []
    with pytest.raises(StoreUnreachable):
        async for found in reader_of(failing_at(3)).read_after(0):
            read.append(found.segment)
    assert read == [segment(1), segment(2)]


async def test_an_error_after_the_end_does_not_matter() -> None:
    assert await read_after(failing_at(5), 0) == [segment(1), segment(2), segment(3), None]


async def test_no_read_goes_on_after_the_iterator_is_closed() -> None:
    bucket = SimulatedBucket(log_of(*range(1, 20)))
    async with aclosing(reader_of(bucket).read_after(0)) as segments:
        async for _ in segments:
            break
    assert bucket.count("get") <= 1 + DEPTH


async def test_each_of_some_positions_with_its_damage() -> None:
    store = log_of(1, 2, 5)
    store.put(KEYS.segment(2), b"damaged")
    reader = reader_of(SimulatedBucket(store))
    found = {position: read async for position, read in reader.read_each([1, 2, 3, 5])}
    damage = found.pop(2)
    assert found == {1: segment(1), 3: None, 5: segment(5)}
    assert isinstance(damage, DataError) and KEYS.segment(2) in str(damage)


async def test_large_segments_are_encoded_and_decoded_in_threads(tmp_path: Path) -> None:
    """A file info of 64 MiB takes up to a second."""
    calls: list[str] = []

    async def noting(function: Callable[..., Any], *args: Any) -> Any:
        calls.append(function.__name__)
        return function(*args)

    store = SimulatedStore()
    writer, reader = (SimulatedGateway(SimulatedBucket(store), number, tmp_path) for number in (1, 2))
    with mock.patch("asyncio.to_thread", noting):
        for size in (1, LogSettings().large_segment):
            message = pb.FileInfo.FromString(file(size).raw)
            message.encrypted += bytes(size)
            await writer.log.append([entry(parse_file_info(message.SerializeToString()))])
            await reader.log.refresh()
    assert calls == ["encode_segment", "decode_segment"]
    assert contents(reader.state) == contents(writer.state)
    writer.close()
    reader.close()
