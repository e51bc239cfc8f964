"""The fixed grid of parts on which large objects are uploaded (docs/format.md, "Objects").

All parts but the last are of equal size (Cloudflare R2 demands it), and each holds whole blocks. So every upload of the
same content has the same part boundaries, and a part that was uploaded once fits between parts that are fetched
later, although a peer's encryption of a block differs each time.
"""

from __future__ import annotations

from untrusted_s3.store.format import PART_GRID, PartGrid


def part_size(data_size: int, block_size: int = 1, grid: PartGrid = PART_GRID) -> int:
    """Return the part size for `data_size` bytes (a file's size without the trailer) in blocks of `block_size` bytes.

    It is 0 for a single PUT, else the smallest whole number of blocks that has at least `grid.min_part_size` bytes,
    doubled until `grid.max_parts` parts hold the data.
    """
    if data_size <= grid.single_put_size:
        return 0
    size = -(-grid.min_part_size // block_size) * block_size
    while size * grid.max_parts < data_size:
        size *= 2
    return size


def part_ranges(object_size: int, size: int) -> list[tuple[int, int]]:
    """Return the beginning and end of each part of an object; one part if `size` is 0."""
    if size == 0:
        return [(0, object_size)]
    return [(start, min(start + size, object_size)) for start in range(0, object_size, size)]
