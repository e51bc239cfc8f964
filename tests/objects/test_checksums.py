"""The bytes of an object are compared part by part, however they arrive."""

from __future__ import annotations

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import SimulatedBucket
from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.checksums import PartChecksums, crc32c_of, crc32c_of_range


def stored(data: bytes, part_size: int) -> StoredObject:
    step = part_size or len(data)
    checksums = tuple(crc32c.crc32c(data[start : start + step]) for start in range(0, len(data), step))
    return StoredObject("0" * 32, len(data), part_size, checksums)


@given(st.binary(min_size=1, max_size=300), st.sampled_from([0, 1, 7, 100, 500]), st.integers(1, 300))
def test_equal_bytes_pass_in_any_pieces(data: bytes, part_size: int, piece_size: int) -> None:
    checksums = PartChecksums(stored(data, part_size))
    for start in range(0, len(data), piece_size):
        checksums.add(data[start : start + piece_size])


@given(st.binary(min_size=1, max_size=300), st.sampled_from([0, 7, 100]), st.integers(1, 300), st.data())
def test_a_changed_byte_is_found_in_its_part(
    data: bytes, part_size: int, piece_size: int, where: st.DataObject
) -> None:
    position = where.draw(st.integers(0, len(data) - 1))
    changed = bytearray(data)
    changed[position] ^= 1
    checksums = PartChecksums(stored(data, part_size))
    with pytest.raises(DataError, match=f"^part {position // (part_size or len(data)) + 1} of its object differs"):
        for start in range(0, len(data), piece_size):
            checksums.add(changed[start : start + piece_size])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_log_with_another_number_of_checksums(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} checksums for the 3 parts"):
        PartChecksums(StoredObject("0" * 32, 250, 100, (0,) * count))


@pytest.mark.parametrize("read_size", [1, 30, 1000])
async def test_a_range_is_read_in_pieces(read_size: int) -> None:
    bucket = SimulatedBucket()
    data = bytes(range(200))
    bucket.store.put("key", data)
    assert await crc32c_of_range(bucket, "key", 10, 150, read_size) == crc32c_of([data[10:50], data[50:150]])
    assert max(call.size or 0 for call in bucket.calls) <= read_size
