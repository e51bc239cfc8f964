"""The grid of parts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.constants import BLOCK_OVERHEAD, MAX_ENCRYPTED_BLOCK_SIZE
from untrusted_s3.store.format import MAX_FILE_SIZE, PART_GRID, PartGrid
from untrusted_s3.store.multipart import part_ranges, part_size
from untrusted_s3.units import MIB

S3_MIN_PART, S3_MAX_PART, S3_MAX_PARTS = 5 * MIB, 5 * 1024 * MIB, 10_000
MAX_TRAILER = 500_000_000


@given(st.integers(0, MAX_FILE_SIZE), st.integers(1, MAX_ENCRYPTED_BLOCK_SIZE))
def test_every_size_fits_into_what_s3_allows(data_size: int, block_size: int) -> None:
    size = part_size(data_size, block_size)
    if size == 0:
        assert data_size <= PART_GRID.single_put_size
        return
    assert data_size > PART_GRID.single_put_size
    assert size % block_size == 0 and size >= PART_GRID.min_part_size
    assert S3_MIN_PART <= size <= S3_MAX_PART
    assert -(-data_size // size) <= PART_GRID.max_parts
    smallest = size - block_size < PART_GRID.min_part_size
    assert smallest or -(-data_size // (size // 2)) > PART_GRID.max_parts  # the smallest that does
    assert -(-(data_size + MAX_TRAILER) // size) <= S3_MAX_PARTS


BLOCK = 128 * 1024 + BLOCK_OVERHEAD


@pytest.mark.parametrize(
    ("data_size", "block_size", "size"),
    [
        (0, 1, 0),
        (8 * MIB, BLOCK, 0),
        (8 * MIB + 1, BLOCK, 64 * BLOCK),
        (8 * MIB + 1, 1, 8 * MIB),
        (9000 * 64 * BLOCK, BLOCK, 64 * BLOCK),
        (9000 * 64 * BLOCK + 1, BLOCK, 128 * BLOCK),
        (64 * 1024 * MIB, MAX_ENCRYPTED_BLOCK_SIZE, MAX_ENCRYPTED_BLOCK_SIZE),
    ],
)
def test_the_edges(data_size: int, block_size: int, size: int) -> None:
    assert part_size(data_size, block_size) == size


def test_another_grid() -> None:
    grid = PartGrid(single_put_size=100, min_part_size=64, max_parts=3)
    assert [part_size(size, 40, grid) for size in (100, 101, 240, 241, 481)] == [0, 80, 80, 160, 320]


@given(object_size=st.integers(1, 200 * MIB), size=st.sampled_from([0, 8 * MIB, 16 * MIB]))
def test_ranges_cover_the_object_once_and_all_but_the_last_are_equal(object_size: int, size: int) -> None:
    ranges = part_ranges(object_size, size)
    assert ranges[0][0] == 0 and ranges[-1][1] == object_size
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    assert all(end - start == size for start, end in ranges[:-1])
    assert 0 < ranges[-1][1] - ranges[-1][0] <= (size or object_size)
