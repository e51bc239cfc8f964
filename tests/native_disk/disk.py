"""The directory of a receive-encrypted folder, made with the real encryption."""

from __future__ import annotations

import json
from pathlib import Path

from tests.simulated import SimulatedBucket
from tests.vault.stored_folder import StoredFolder
from untrusted_s3.index.entry import Entry
from untrusted_s3.native_disk.token_file import TOKEN_NAME, PasswordToken
from untrusted_s3.objects.trailer import encode_trailer


class Disk:
    """A directory, and the folder whose files it has. The folder is in a store of its own."""

    def __init__(self, folder: StoredFolder, root: Path) -> None:
        self.folder = folder
        self.root = root

    @classmethod
    async def create(cls, directory: Path) -> Disk:
        """Make a directory that has the token file alone."""
        (directory / "home").mkdir()
        folder = await StoredFolder(SimulatedBucket(), directory / "home").create()
        root = directory / "encrypted"
        (root / ".stfolder").mkdir(parents=True)
        token = PasswordToken(folder.record.folder_id, folder.record.token)
        (root / ".stfolder" / TOKEN_NAME).write_text(json.dumps(token.to_json()))
        return cls(folder, root)

    async def content(self, entry: Entry) -> bytes:
        """Return the blocks of a file, and its file info behind them."""
        body = await self.folder.bucket.get(self.folder.object_key(entry))
        return body[: entry.file_info.message.size] + encode_trailer(entry.file_info)

    async def write(self, entry: Entry) -> Path:
        """Write a file, or the directory that stands for a directory or symlink."""
        path = self.root / entry.file_info.name
        if entry.stored is None:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await self.content(entry))
        return path
