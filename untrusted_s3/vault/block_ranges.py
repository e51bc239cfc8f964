"""Ranges of an object that are read by one GET: consecutive blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from untrusted_s3.bep import bep_pb2 as pb


class BlockRange(NamedTuple):
    """Consecutive blocks of an object.

    Attributes:
        first: The number of the first block.
        end: The number after the last block.
        start: The offset of the first block in the object.
        size: The bytes of all blocks.
    """

    first: int
    end: int
    start: int
    size: int


def block_ranges(blocks: Sequence[pb.BlockInfo], first: int, end: int, read_size: int) -> Iterator[BlockRange]:
    """Divide the blocks from number `first` to `end` (not included) into ranges.

    A range has at most `read_size` bytes, or one block. `blocks` are those of the encrypted file info.
    """
    while first < end:
        start, after = blocks[first].offset, first + 1
        while after < end and blocks[after].offset + blocks[after].size - start <= read_size:
            after += 1
        last = blocks[after - 1]
        yield BlockRange(first, after, start, last.offset + last.size - start)
        first = after
