"""The fixed grid of parts on which large objects are uploaded (docs/format.md, "Objects").

All parts but the last are of equal size (Cloudflare R2 demands it), and the size depends on the file's encrypted size
alone, so that every upload of the same content has the same part boundaries.
"""

from __future__ import annotations

from untrusted_s3 import limits


def part_size(data_size: int) -> int:
    """The part size for a file of `data_size` encrypted bytes (without the trailer): 0 for a single PUT, else the
    smallest power of two from 8 MiB that keeps the number of parts at or below 9,000."""
    if data_size <= limits.SINGLE_PUT_SIZE:
        return 0
    size = limits.MIN_PART_SIZE
    while size * limits.MAX_PARTS < data_size:
        size *= 2
    return size


def part_ranges(object_size: int, size: int) -> list[tuple[int, int]]:
    """Begin and end of each part of an object; one part where `size` is 0."""
    if size == 0:
        return [(0, object_size)]
    return [(start, min(start + size, object_size)) for start in range(0, object_size, size)]
