"""Checks parts of objects against the log while their blocks are served, without reading anything for that.

Of each block that passes, the CRC-32C is kept until all blocks of its part have passed. Peers never ask for the trailer
behind the last block. It counts as that of the file info in the log, if the sizes fit. If only metadata has changed
since the object was written, it is another one. So a part that differs is only suspected: the store is asked again
before anything is done about it (sync/missing.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import crc32c

from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.crc_combine import combine
from untrusted_s3.objects.trailer import encode_trailer

# What is forgotten is checked when it passes again.
_MAX_OBJECTS = 256
_MAX_PARTS_OF_OBJECT = 16
_MAX_SUSPECTED = 10_000
# A part that was suspected for its trailer is not suspected again so soon.
_SUSPECT_INTERVAL = 3600.0


@dataclass(slots=True)
class _Part:
    """A part of which blocks have passed.

    Attributes:
        start: Where it begins in the object.
        data_end: Where its blocks end.
        end: Where it ends; after `data_end` comes the trailer.
        trailer: The CRC-32C of the bytes of the trailer in it.
        expected: Its CRC-32C in the log.
        passed: The sizes and CRC-32C of the blocks that have passed, by their offsets.
        left: The bytes of blocks that have not passed.
    """

    start: int
    data_end: int
    end: int
    trailer: int
    expected: int
    left: int
    passed: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Object:
    part_size: int
    parts: OrderedDict[int, _Part] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class WrongPart:
    """A part of an object whose bytes have not the CRC-32C in the log.

    Attributes:
        key: The object's key.
        start: Where the part begins.
        data_end: Where its blocks end. What follows is the trailer, which was not read.
        end: Where the part ends.
        passed: The CRC-32C of its blocks as they were read.
        checksum: The CRC-32C of the part in the log.
    """

    key: str
    start: int
    data_end: int
    end: int
    passed: int
    checksum: int


class ServedParts:
    """The parts of a folder's objects of which blocks are served."""

    def __init__(self, suspect: Callable[[WrongPart], None]) -> None:
        """`suspect` is told of parts that differ from the log, each once in an hour."""
        self._suspect = suspect
        self._objects: OrderedDict[str, _Object] = OrderedDict()
        self._suspected: OrderedDict[tuple[str, int], float] = OrderedDict()

    def expect(self, key: str, entry: Entry, offset: int) -> None:
        """Note that the block of an entry that begins at `offset` of its object is about to be read."""
        stored = entry.stored
        if stored is None:
            return
        found = self._objects.get(key)
        if found is None:
            found = self._objects[key] = _Object(stored.part_size or stored.size)
            if len(self._objects) > _MAX_OBJECTS:
                self._objects.popitem(last=False)
        self._objects.move_to_end(key)
        number = offset // found.part_size
        if number in found.parts:
            return
        part = _part_of(entry, stored, number)
        if part is not None:
            found.parts[number] = part
            if len(found.parts) > _MAX_PARTS_OF_OBJECT:
                found.parts.popitem(last=False)

    def passed(self, key: str, offset: int, block: memoryview) -> None:
        """Take a block that was read."""
        found = self._objects.get(key)
        if found is None:
            return
        number = offset // found.part_size
        part = found.parts.get(number)
        if part is None or offset in part.passed or len(block) > part.left:
            return
        part.passed[offset] = len(block), crc32c.crc32c(block)
        part.left -= len(block)
        if part.left == 0:
            del found.parts[number]
            if not found.parts:
                del self._objects[key]
            self._check(key, part)

    def _check(self, key: str, part: _Part) -> None:
        checksum, position = 0, part.start
        for offset, (size, of_block) in sorted(part.passed.items()):
            if offset != position:
                return  # a block lies in two parts
            checksum = combine(checksum, of_block, size)
            position += size
        if combine(checksum, part.trailer, part.end - part.data_end) == part.expected:
            return
        now, place = asyncio.get_running_loop().time(), (key, part.start)
        if now - self._suspected.get(place, float("-inf")) < _SUSPECT_INTERVAL:
            return
        self._suspected[place] = now
        self._suspected.move_to_end(place)
        if len(self._suspected) > _MAX_SUSPECTED:
            self._suspected.popitem(last=False)
        self._suspect(WrongPart(key, part.start, part.data_end, part.end, checksum, part.expected))


def _part_of(entry: Entry, stored: StoredObject, number: int) -> _Part | None:
    """Return a part of an entry's object, or None if it cannot be checked without its trailer."""
    size = stored.part_size or stored.size
    start = number * size
    end = min(start + size, stored.size)
    data_size = entry.file_info.message.size
    data_end = min(end, data_size)
    trailer = b""
    if end > data_size:
        trailer = encode_trailer(entry.file_info)
        if data_size + len(trailer) != stored.size:
            return None
        trailer = trailer[max(start - data_size, 0) : end - data_size]
    if number >= len(stored.part_crc32c) or data_end <= start:
        return None
    return _Part(start, data_end, end, crc32c.crc32c(trailer), stored.part_crc32c[number], data_end - start)
