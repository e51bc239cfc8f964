"""What the log has said of an object that the folder does not have now (index/log.py)."""

from __future__ import annotations

import contextlib

from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.store.layout import name_key

_READ_AT_ONCE = 4


async def find_earlier(
    reader: SegmentReader, last: int, key: bytes, object_name: str, most: int
) -> StoredObject | None:
    """Return what an entry of the log says of an object of the name with this hash, None where none is found.

    The log is read backwards from the position `last`, until about `most` bytes are read, and no further than to a
    segment that is missing or damaged. Raises StoreError.
    """
    read = 0
    found = read_ahead(map(reader.read, range(last, 0, -1)), _READ_AT_ONCE)
    async with contextlib.aclosing(found) as segments:
        with contextlib.suppress(DataError):
            async for one in segments:
                read += one.size
                if one.segment is None:
                    return None
                if (stored := _named_in(one.segment, key, object_name)) is not None or read >= most:
                    return stored
    return None


def _named_in(segment: Segment, key: bytes, object_name: str) -> StoredObject | None:
    for entry in segment.entries:
        for version in entry.versions:
            stored = version.stored
            if stored is not None and stored.object_name == object_name and name_key(entry.file_info.name) == key:
                return stored
    return None
