"""The CRC-32C of joined bytes."""

from __future__ import annotations

import crc32c
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.objects.crc_combine import combine


@given(st.binary(), st.binary())
def test_that_of_two_pieces(first: bytes, second: bytes) -> None:
    assert combine(crc32c.crc32c(first), crc32c.crc32c(second), len(second)) == crc32c.crc32c(first + second)


def test_large_pieces() -> None:
    first, second = bytes(range(256)) * 999, bytes(range(255)) * 77_777
    assert combine(crc32c.crc32c(first), crc32c.crc32c(second), len(second)) == crc32c.crc32c(first + second)
