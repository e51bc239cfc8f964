"""What the folder's password tells of single entries of the log, whose folder is not open."""

from __future__ import annotations

from untrusted_s3.bep.file_info import check_name
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DecryptionFailed, RemoteProtocolError
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.vault.entry import DamagedEntry, open_entry


class Opener:
    """Opens the entries of one folder."""

    def __init__(self, key: FolderKey, folder_id: str) -> None:
        self._key = key
        self._keys = FolderKeys.of(folder_id)

    def decrypts(self, entry: LogEntry) -> bool:
        """Return whether an entry decrypts, be it a deletion or not, and its outside fits its inside."""
        return not isinstance(open_entry(entry, self._key, self._keys), DamagedEntry)

    def path(self, encrypted_name: str) -> str | None:
        """Return the plain name, or None if it does not decrypt or would lead out of the folder."""
        return harmless_path(self._key, encrypted_name)

    def encrypt_name(self, path: str) -> str:
        """Return the encrypted name of a path."""
        return self._key.encrypt_name(path)


def harmless_path(key: FolderKey, encrypted_name: str) -> str | None:
    """Return the plain name of an encrypted one, or None if it does not decrypt or would lead out of the folder."""
    try:
        path = key.decrypt_name(encrypted_name)
        check_name(path)
    except (DecryptionFailed, RemoteProtocolError):
        return None
    return path
