"""Ranges of objects that are being read or were read lately, for the blocks in them that peers request next.

A peer that reads a file in order asks for the blocks behind those that it has. Several peers that pull the same folder
ask for the same blocks, one a little later than the other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

# About what keeping a range takes beside its bytes.
_COST = 1024

# Sends a block, or no bytes and an error code of BEP, and returns when most of it has been sent.
Answer = Callable[[memoryview, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RequestedBlock:
    """A block that a peer has requested, where the store has it.

    Attributes:
        key: The key of its object.
        offset: Where it begins in the object.
        size: How many bytes it has.
        part_end: Where the last block ends that lies in the same part of the object.
    """

    key: str
    offset: int
    size: int
    part_end: int

    @property
    def end(self) -> int:
        """Where it ends in the object."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Waiting:
    """A block and how it is answered."""

    block: RequestedBlock
    answer: Answer


@dataclass(slots=True, eq=False)
class ObjectRange:
    """Bytes of an object that are being read, or are here.

    Attributes:
        key: The object's key.
        start: Where the range begins in the object.
        size: How many bytes it has.
        data: The bytes; None while they are being read.
        waiting: The blocks that are answered when they are here.
        requested: The offsets of the blocks that were requested since it was planned to read them.
        checked: The offsets of the blocks that have been looked at since the bytes were read.
        last_used: The loop's time of the last block.
    """

    key: str
    start: int
    size: int
    data: memoryview | None = None
    waiting: list[Waiting] = field(default_factory=list)
    requested: set[int] = field(default_factory=set)
    checked: set[int] = field(default_factory=set)
    last_used: float = 0.0

    @property
    def end(self) -> int:
        """Where the range ends in the object."""
        return self.start + self.size

    def has(self, block: RequestedBlock) -> bool:
        """Return whether a block of the object lies in the range."""
        return self.start <= block.offset and block.end <= self.end

    def bytes_of(self, block: RequestedBlock) -> memoryview:
        """Return the bytes of a block.

        Those of one that is small beside the range are copied: a peer that reads slowly holds them for long.
        """
        assert self.data is not None
        view = self.data[block.offset - self.start : block.end - self.start]
        return view if 2 * block.size >= self.size else memoryview(bytes(view))


class RecentRanges:
    """Ranges up to `capacity` bytes in all. The least recently used one gives way to a new one.

    A range that nobody has used for `lifetime` seconds is dropped soon after.
    """

    def __init__(self, capacity: int, lifetime: float) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._used = 0
        self._being_read = 0
        # In the order of their last use.
        self._ranges: OrderedDict[ObjectRange, None] = OrderedDict()
        self._of_object: dict[str, list[ObjectRange]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def used(self) -> int:
        """The bytes of all ranges, with what keeping them takes."""
        return self._used

    def find(self, block: RequestedBlock) -> ObjectRange | None:
        """Return a range that has this block, or None."""
        for found in self._of_object.get(block.key, ()):
            if found.has(block):
                found.last_used = asyncio.get_running_loop().time()
                self._ranges.move_to_end(found)
                return found
        return None

    def has_room(self, size: int) -> bool:
        """Return whether a range of so many bytes could be added, after others have given way."""
        return self._being_read + size + _COST <= self._capacity

    def add(self, key: str, start: int, size: int) -> ObjectRange:
        """Return a range that is about to be read. It is kept if there is room for it."""
        added = ObjectRange(key, start, size, last_used=asyncio.get_running_loop().time())
        if self.has_room(size):
            while self._used + size + _COST > self._capacity:
                self.drop(next(kept for kept in self._ranges if kept.data is not None))
            self._ranges[added] = None
            self._of_object.setdefault(key, []).append(added)
            self._used += size + _COST
            self._being_read += size + _COST
            self._drop_later()
        return added

    def filled(self, kept: ObjectRange, data: memoryview) -> None:
        """Note the bytes of a range."""
        if kept in self._ranges:
            self._being_read -= kept.size + _COST
        kept.data = data

    def drop(self, dropped: ObjectRange) -> None:
        """Keep a range no longer. One that is not kept is left alone."""
        if dropped not in self._ranges:
            return
        del self._ranges[dropped]
        self._used -= dropped.size + _COST
        if dropped.data is None:
            self._being_read -= dropped.size + _COST
        of_object = self._of_object[dropped.key]
        of_object.remove(dropped)
        if not of_object:
            del self._of_object[dropped.key]

    def clear(self) -> None:
        """Drop all ranges."""
        for kept in list(self._ranges):
            self.drop(kept)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._lifetime / 2, self._drop_unused)

    def _drop_unused(self) -> None:
        self._timer = None
        oldest = asyncio.get_running_loop().time() - self._lifetime
        for kept in [kept for kept in self._ranges if kept.data is not None and kept.last_used <= oldest]:
            self.drop(kept)
        if self._ranges:
            self._drop_later()
