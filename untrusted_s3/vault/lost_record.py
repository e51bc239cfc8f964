"""Makes the record of a folder again with the folder's password."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, DecryptionFailed, WrongPassword
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord

# An entry may be one that somebody without the password has made.
_NAMES_TRIED = 100


async def make_record(bucket: Bucket, folder_id: str, password: str) -> FolderRecord:
    """Return a record for a folder whose own is lost. A name in its log has to tell that the password is right.

    The label is lost. The index id is another one, so that devices and the folder exchange whole indexes. Raises
    WrongPassword, DataError if the log cannot be read or has nothing, or StoreError.
    """
    key = await asyncio.to_thread(FolderKey.derive, password, folder_id)
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        state = FolderState(Path(directory, "state.sqlite"))
        try:
            await load_newest(bucket, FolderKeys.of(folder_id), state)
            names = [state.entry_at(one).file_info.name for one in state.sequences_after(0, _NAMES_TRIED)]
            is_renewed = state.index_id != 0
        finally:
            state.close()
    if not names:
        raise DataError("the folder has nothing that would tell whether the password is right")
    if not any(_opens(key, name) for name in names):
        raise WrongPassword(f"wrong password for the folder {folder_id!r}")
    record = FolderRecord(folder_id, "", key.token())
    # An odd id says that claims may not have been noted (docs/format.md, "Version 1"): nobody knows here.
    index_id = record.index_id if is_renewed else record.index_id | 1
    return FolderRecord(folder_id, "", key.token(), index_id)


def _opens(key: FolderKey, name: str) -> bool:
    try:
        key.decrypt_name(name)
    except DecryptionFailed:
        return False
    return True
