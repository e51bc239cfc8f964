"""The list of the objects of a folder's present state, for those who want them without this program (docs/format.md,
"Present objects").

It is a text that `rclone --files-from-raw`, or a loop around `aws s3 cp`, takes.
"""

from __future__ import annotations

import asyncio
import filecmp
import re
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from untrusted_s3.errors import DataError, NoSuchKey, StateDamaged
from untrusted_s3.index.database import is_damage
from untrusted_s3.index.local_files import CHECKPOINT_PREFIX
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_OBJECTS = "SELECT name_hash, content_hash FROM files WHERE content_hash IS NOT NULL ORDER BY sequence"
_HEAD = re.compile(rb"# position=([0-9]{1,19}) ")
_FIRST_LINE = re.compile(rb"# position=([0-9]{1,19}) time=([0-9TZ:-]{20})\n")
_HEAD_SIZE = 64
_LINE = re.compile(rb"([0-9a-f]{2})/\1[0-9a-f]{30}/[0-9a-f]{32}(-[0-9a-z]{1,64})?\n")
_LINE_SIZE = 200
_LIST = "present-objects"


async def write_present_objects(bucket: Bucket, keys: FolderKeys, state: FolderState) -> int:
    """Write the list for the state as it is now, and return its position.

    Raises StateDamaged, OSError, sqlite3.Error or StoreError.
    """
    time = datetime.fromtimestamp(bucket.now(), UTC)
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix=CHECKPOINT_PREFIX) as directory:
        path = Path(directory, _LIST)
        position = await asyncio.to_thread(_write, state.path, path, keys, f"{time:%Y-%m-%dT%H:%M:%SZ}")
        await bucket.upload_file(keys.present_objects, path)
    return position


async def listed_position(bucket: Bucket, keys: FolderKeys) -> int:
    """Return the position of the list that the store has; 0 for none. Raises StoreError."""
    try:
        size = await bucket.size(keys.present_objects)
        head = await bucket.get(keys.present_objects, 0, min(size or 0, _HEAD_SIZE)) if size else b""
    except NoSuchKey:
        return 0
    found = _HEAD.match(head)
    return int(found[1]) if found is not None else 0


async def check_present_objects(bucket: Bucket, keys: FolderKeys, state: FolderState) -> str | None:
    """Return what is wrong with the list, or None. `state` is that of the end of the log.

    A list of the same position must name the same objects. Of others only the form is checked. Raises StoreError.
    """
    if not await bucket.size(keys.present_objects):
        return None
    with tempfile.TemporaryDirectory(dir=state.path.parent, prefix=CHECKPOINT_PREFIX) as directory:
        path = Path(directory, _LIST)
        try:
            await bucket.download_file(keys.present_objects, path)
        except NoSuchKey:
            return None
        return await asyncio.to_thread(_wrong, path, keys, state)


def _wrong(path: Path, keys: FolderKeys, state: FolderState) -> str | None:
    with path.open("rb") as file:
        head = _FIRST_LINE.fullmatch(file.readline(_HEAD_SIZE))
        if head is None:
            return "it does not begin with its position and its time"
        if int(head[1]) == state.position:
            due = path.with_name("due")
            _write(state.path, due, keys, head[2].decode())
            return None if filecmp.cmp(path, due, shallow=False) else "it does not name the objects of its position"
        while line := file.readline(_LINE_SIZE):
            if _LINE.fullmatch(line) is None:
                return "it has a line that is no key of an object"
    return None


def _write(state: Path, path: Path, keys: FolderKeys, time: str) -> int:
    try:
        with closing(sqlite3.connect(f"{state.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # position and objects of one moment
            row = connection.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()
            if row is None:
                raise DataError("the local state has no position")
            with path.open("w", encoding="ascii", newline="\n") as file:
                file.write(f"# position={row[0]} time={time}\n")
                for name_hash, object_name in connection.execute(_OBJECTS):
                    file.write(f"{keys.object_of(name_hash, object_name).removeprefix(keys.objects)}\n")
            return int(row[0])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        raise StateDamaged(f"the local state is damaged ({error}) and is made again from the store") from error
