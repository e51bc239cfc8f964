"""The CRC-32C of joined bytes from those of their pieces, as zlib's crc32_combine does it (zlib 1.3 crc32.c)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli, reflected
_ONE: Final = 1 << 31  # the polynomial 1, reflected


def combine(first: int, second: int, second_size: int) -> int:
    """Return the CRC-32C of two pieces, one after the other. `second_size` is the number of bytes of the second."""
    return _multiply(_zeros(second_size), first) ^ second


@lru_cache(maxsize=64)
def _zeros(size: int) -> int:
    """Return x to the power of 8 * `size`, modulo the polynomial: what `size` bytes of zeros do to a CRC."""
    power, result = 1 << 23, _ONE  # x^8
    while size:
        if size & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        size >>= 1
    return result


def _multiply(one: int, other: int) -> int:
    """Multiply two polynomials modulo the polynomial of the CRC."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = (one << 1) & 0xFFFFFFFF
        other = (other >> 1) ^ _POLYNOMIAL if other & 1 else other >> 1
    return product
