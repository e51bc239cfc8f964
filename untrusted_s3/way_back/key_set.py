"""A set of name hashes that takes eight bytes for each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable


class KeySet:
    """Hashes of names. It may say of one that it has it when it has another one that begins alike."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._numbers = array("Q", sorted(array("Q", map(_number, keys))))

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, key: bytes) -> bool:
        number = _number(key)
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")
