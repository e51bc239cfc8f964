"""Sets of positions of a log, as few ranges: anybody who can write to the bucket can make a key at any position."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Set
from itertools import chain


class Positions(Set[int]):
    """A set of positions; iterating gives them in rising order.

    A log without gaps takes the memory of one range, however long it is.
    """

    def __init__(self, *ranges: range) -> None:
        """Make a set of ranges that rise, with a gap between any two."""
        self._ranges = list(ranges)

    def __contains__(self, position: object) -> bool:
        if not isinstance(position, int):
            return False
        index = bisect_right(self._ranges, position, key=lambda one: one.start)
        return index > 0 and position < self._ranges[index - 1].stop

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._ranges)

    def __len__(self) -> int:
        return sum(one.stop - one.start for one in self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def ranges(self) -> list[range]:
        """The ranges, in rising order."""
        return self._ranges

    @property
    def last(self) -> int:
        """The highest position; 0 for none."""
        return self._ranges[-1].stop - 1 if self._ranges else 0

    def add(self, position: int) -> None:
        """Add a position. This is fastest in rising order."""
        ranges = self._ranges
        index = len(ranges)
        if ranges and position < ranges[-1].stop:
            index = bisect_right(ranges, position, key=lambda one: one.start)
            if index and position < ranges[index - 1].stop:
                return
        first, stop = index, index
        if index and ranges[index - 1].stop == position:
            first = index - 1
        if index < len(ranges) and ranges[index].start == position + 1:
            stop = index + 1
        start = ranges[first].start if first < index else position
        end = ranges[index].stop if stop > index else position + 1
        ranges[first:stop] = [range(start, end)]

    def gaps(self, first: int, last: int) -> list[range]:
        """Return the ranges of positions from `first` to `last` that are not in the set."""
        found = []
        for one in self._ranges:
            if one.stop <= first:
                continue
            if one.start > last:
                break
            if one.start > first:
                found.append(range(first, one.start))
            first = one.stop
        if first <= last:
            found.append(range(first, last + 1))
        return found
