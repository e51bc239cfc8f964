"""The list of the objects of a folder's present state, for those who want them without this program (docs/format.md,
"Present objects").

It is a text that `rclone --files-from-raw`, or a loop around `aws s3 cp`, takes.
"""

from __future__ import annotations

import asyncio
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
_HEAD_SIZE = 64
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
