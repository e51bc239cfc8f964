"""Checkpoints: a folder's state at a position of its log as one object in the bucket, so that a new gateway need not
read the whole log (docs/format.md, "Checkpoints").

    SQLite file (a multiple of 512 bytes)  CRC-32C of it (4 bytes, big endian)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import crc32c

from untrusted_s3.errors import DataError
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.local_files import CHECKPOINT_PREFIX, STATE_FILE, UPGRADED_FILE
from untrusted_s3.index.schema import STATE_VERSION, upgrade
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.units import MIB

_CHECKSUM_SIZE = 4


async def write_checkpoint(bucket: Bucket, keys: FolderKeys, state: FolderState) -> int:
    """Write the state as a checkpoint and return its position.

    Another gateway's checkpoint of the same position has the same content, so it does not matter which one stays.
    Raises StoreError.
    """
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix=CHECKPOINT_PREFIX) as directory:
        path = Path(directory, STATE_FILE)
        position = await asyncio.to_thread(_write_copy, state, path)
        await bucket.upload_file(keys.checkpoint(position), path)
    return position


async def read_checkpoint(
    bucket: Bucket,
    keys: FolderKeys,
    position: int,
    state: FolderState,
    *,
    check_entries: bool = True,
    kept_as: str | None = None,
) -> None:
    """Replace the local state by the checkpoint of a position. Until then the local state serves.

    `check_entries` is for `checkpoint_check.check_copy`, `kept_as` the key of one that is kept beyond the history.
    Raises NoSuchKey, another StoreError, or DataError where the checkpoint is damaged; the local state then stays.
    """
    key = kept_as or keys.checkpoint(position)
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix=CHECKPOINT_PREFIX) as directory:
        fresh = Path(directory, STATE_FILE)
        await bucket.download_file(key, fresh)
        state.replace(await asyncio.to_thread(_check, fresh, position, key, check_entries))


async def check_checkpoint(
    bucket: Bucket, keys: FolderKeys, position: int, directory: Path | None = None, *, kept_as: str | None = None
) -> None:
    """Check that a checkpoint can be read. Its rows are not compared with their file infos.

    It is loaded to a temporary file in `directory`. `kept_as` is the key of one that is kept beyond the history. Raises
    NoSuchKey, another StoreError, or DataError where it is damaged.
    """
    key = kept_as or keys.checkpoint(position)
    with tempfile.TemporaryDirectory(dir=directory, prefix=CHECKPOINT_PREFIX) as temporary:
        path = Path(temporary, STATE_FILE)
        await bucket.download_file(key, path)
        await asyncio.to_thread(_check, path, position, key, False)


async def keep_checkpoint(
    bucket: Bucket, keys: FolderKeys, position: int, kept_as: str, directory: Path | None = None
) -> None:
    """Write a checkpoint once more under the key `kept_as`.

    It passes a temporary file in `directory`. The store refuses what arrives more than FILE_UPLOAD_LIFETIME after that
    was begun. Raises NoSuchKey, another StoreError, or DataError where the checkpoint is damaged.
    """
    await _copy_checked(bucket, keys.checkpoint(position), position, bucket, kept_as, directory)


async def copy_kept_checkpoint(source: Bucket, target: Bucket, key: str, position: int) -> None:
    """Copy a checkpoint that is kept beyond the history from another store.

    Raises NoSuchKey, another StoreError, or DataError where it is damaged there.
    """
    await _copy_checked(source, key, position, target, key, None)


async def _copy_checked(
    source: Bucket, key: str, position: int, target: Bucket, new_key: str, directory: Path | None
) -> None:
    with tempfile.TemporaryDirectory(dir=directory, prefix=CHECKPOINT_PREFIX) as temporary:
        path, checked = Path(temporary, STATE_FILE), Path(temporary, "checked")
        await source.download_file(key, path)
        await asyncio.to_thread(shutil.copyfile, path, checked)
        await asyncio.to_thread(_check, checked, position, key, False)
        await target.upload_file(new_key, path)


def _write_copy(state: FolderState, path: Path) -> int:
    position = state.write_copy(path)
    checksum = _crc32c_of(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(checksum)
    return position


def _check(path: Path, position: int, key: str, entries: bool) -> Path:
    """Check a downloaded checkpoint, cut its checksum off, and return the path of its state of the present version.

    Raises DataError.
    """
    size = path.stat().st_size - _CHECKSUM_SIZE
    with path.open("rb") as file:
        file.seek(max(size, 0))
        if size <= 0 or _crc32c_of(path, size) != file.read():
            raise DataError(f"{key} is damaged: its checksum does not match")
    os.truncate(path, size)
    if check_copy(path, position, key, entries=entries) == STATE_VERSION:
        return path
    upgraded = path.with_name(UPGRADED_FILE)
    upgrade(path, upgraded)
    return upgraded


def _crc32c_of(path: Path, size: int) -> bytes:
    checksum, left = 0, size
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, MIB))
            checksum = crc32c.crc32c(piece, checksum)
            left -= len(piece)
    return checksum.to_bytes(_CHECKSUM_SIZE, "big")
