"""Checkpoints: a folder's state at a position of its log as one SQLite file in the bucket, so that a new gateway need
not read the whole log."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from untrusted_s3.index.state import FolderState, check_copy
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys


async def newest_checkpoint(bucket: Bucket, keys: FolderKeys) -> int:
    """The position of the newest checkpoint in the bucket, 0 for none."""
    newest = 0
    async for item in bucket.list(keys.checkpoints):
        suffix = item.key.removeprefix(keys.checkpoints)
        if len(suffix) == 20 and suffix.isascii() and suffix.isdigit():
            newest = max(newest, int(suffix))
    return newest


async def write_checkpoint(bucket: Bucket, keys: FolderKeys, state: FolderState) -> int:
    """Writes the state as a checkpoint and returns its position. Another gateway's checkpoint of the same position
    says the same, so it does not matter which one stays."""
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix="checkpoint-") as directory:
        path = Path(directory, "state.sqlite")
        position = await asyncio.to_thread(state.write_copy, path)
        await bucket.upload_file(keys.checkpoint(position), path)
    return position


async def read_checkpoint(bucket: Bucket, keys: FolderKeys, position: int, state: FolderState) -> None:
    """Puts the checkpoint of a position in the place of the local state, which serves until then.

    Raises DataError where it is damaged; the local state then stays.
    """
    key = keys.checkpoint(position)
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix="checkpoint-") as directory:
        fresh = Path(directory, "state.sqlite")
        await bucket.download_file(key, fresh)
        await asyncio.to_thread(check_copy, fresh, position, key)
        state.replace(fresh)
