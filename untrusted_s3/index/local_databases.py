"""The two local files of a folder: what it has stored, and what is announced."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from untrusted_s3.accounts import Account
from untrusted_s3.errors import StateDamaged, StateFolderUnusable
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.local_files import PENDING_FILE, STATE_FILE
from untrusted_s3.index.pending import PendingIndex
from untrusted_s3.index.state import FolderState


def open_databases(
    directory: Path, on_damage: Callable[[], None], parsed: Account, pending: Account
) -> tuple[FolderState, PendingIndex]:
    """Open both files in a folder's directory. Files that cannot be read are deleted: what they held is in the store.

    `parsed` bounds the memory for parsed file infos, and `pending` the bytes of announced entries on the disk. Raises
    StateFolderUnusable or, after the deletion, StateDamaged.
    """
    files: list[FolderState | PendingIndex] = []
    try:
        state = FolderState(directory / STATE_FILE, on_damage, parsed)
        files.append(state)
        announced = PendingIndex(directory / PENDING_FILE, on_damage, parsed, pending)
    except Exception as error:
        for file in files:
            file.close()
        if isinstance(error, StateFolderUnusable):
            raise
        if isinstance(error, OSError | sqlite3.OperationalError):
            raise StateFolderUnusable(f"the state folder {directory} cannot be used: {error}") from error
        remove_database(directory / STATE_FILE)
        remove_database(directory / PENDING_FILE)
        raise StateDamaged(f"the local state is damaged: {error}") from error
    return state, announced
