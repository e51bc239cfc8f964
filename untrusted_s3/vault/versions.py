"""All versions that a name has had within the history that the store keeps."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.history import segments_after, to_datetime
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints


async def read_versions(bucket: Bucket, keys: FolderKeys, name: str) -> AsyncIterator[tuple[datetime | None, Entry]]:
    """Yield what the log says of an encrypted name, oldest first, and since when (None: before the history).

    Reads the oldest checkpoint, if the log no longer begins at its first segment, and all segments after it. Raises
    DataError or StoreError.
    """
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        base = FolderState(Path(directory, "base.sqlite"))
        try:
            if not await bucket.size(keys.segment(1)):
                oldest = min(await list_checkpoints(bucket, keys), default=None)
                if oldest is not None:
                    await read_checkpoint(bucket, keys, oldest, base)
            found, position = base.entry(name), base.position
        finally:
            base.close()
    if found is not None:
        yield None, found
    async for _, segment in segments_after(bucket, keys, position):
        for entry in segment.entries:
            if entry.file_info.name == name:
                yield to_datetime(segment.time_ms), entry
