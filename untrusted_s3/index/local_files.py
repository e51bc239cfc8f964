"""Where the local files of folders lie, and the deletion of those of removed folders.

    {state directory}/{store id}/{folder segment}/{index id, 16 hex digits}/state.sqlite, pending.sqlite

Parts of these paths come from the store, which anybody with write rights can change. `_join` is the one function that
makes a path of them. What is deleted has exactly the form of what this program makes.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import structlog

from untrusted_s3.errors import DataError
from untrusted_s3.store.layout import folder_segment

STATE_FILE = "state.sqlite"
PENDING_FILE = "pending.sqlite"
# A checkpoint of an earlier format version, as a state of the present one; in a directory for checkpoints only.
UPGRADED_FILE = "upgraded.sqlite"
# The state before the healing of a log began, and a copy that is being made of it (sync/healing.py).
BEFORE_FILE = "before.sqlite"
COPY_FILE = "copy.sqlite"
# Of directories for checkpoints on their way (tempfile.TemporaryDirectory).
CHECKPOINT_PREFIX = "checkpoint-"

_logger = structlog.get_logger()
_STORE_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER_SEGMENT = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}")
_INDEX_ID = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"(state|pending|upgraded|before|copy)\.sqlite(-wal|-shm|-journal)?")
_CHECKPOINT_DIRECTORY = re.compile(r"checkpoint-[0-9a-z_]{1,32}")


def store_directory(state_directory: Path, store_id: str) -> Path:
    """Return where the local files of a store's folders are. Raises DataError if `store_id` is not 32 hex digits."""
    return _join(state_directory, store_id, _STORE_ID)


def folder_directory(store_files: Path, folder_id: str, index_id: int) -> Path:
    """Return where a folder's local files are, below `store_directory`. Raises DataError."""
    return _join(_join(store_files, folder_segment(folder_id), _FOLDER_SEGMENT), f"{index_id:016x}", _INDEX_ID)


def delete_others(directory: Path) -> None:
    """Delete the local files of removed folders with the same ID as the folder whose files are in `directory`.

    A directory beside it that holds anything that this program does not make there stays, and so does a link.
    """
    try:
        with os.scandir(directory.parent) as found:
            others = [item for item in found if item.name != directory.name]
    except OSError:
        return
    for item in others:
        try:
            if _INDEX_ID.fullmatch(item.name) and item.is_dir(follow_symlinks=False):
                _delete(Path(item.path))
        except OSError as error:
            _logger.warning("old local files not deleted", path=item.path, error=str(error))


def _join(base: Path, name: str, form: re.Pattern[str]) -> Path:
    if not form.fullmatch(name):
        raise DataError(f"{name[:100]!r} from the store is no part of a local path")
    return base / name


def _delete(directory: Path) -> None:
    """Delete a directory if all in it is ours. Raises OSError."""
    # By descriptors, so that no directory is exchanged for a link meanwhile.
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        names = os.listdir(opened)  # noqa: PTH208
        checkpoints = [name for name in names if _CHECKPOINT_DIRECTORY.fullmatch(name) and _is_directory(name, opened)]
        files = [name for name in names if _is_own_file(name, opened)]
        if len(files) + len(checkpoints) < len(names):
            return
        if not all(_delete_files(name, opened, delete=False) for name in checkpoints):
            return
        for name in checkpoints:
            _delete_files(name, opened, delete=True)
            os.rmdir(name, dir_fd=opened)
        for name in files:
            os.unlink(name, dir_fd=opened)
    finally:
        os.close(opened)
    directory.rmdir()


def _delete_files(directory: str, parent: int, *, delete: bool) -> bool:
    """Return whether all in a directory are files that we make; then delete them, if `delete`."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        names = os.listdir(opened)  # noqa: PTH208
        if not all(_is_own_file(name, opened) for name in names):
            return False
        for name in names if delete else ():
            os.unlink(name, dir_fd=opened)
        return True
    finally:
        os.close(opened)


def _is_own_file(name: str, directory: int) -> bool:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return _FILE.fullmatch(name) is not None and stat.S_ISREG(found.st_mode)


def _is_directory(name: str, directory: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
