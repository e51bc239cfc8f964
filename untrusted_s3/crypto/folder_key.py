"""Folder keys: made from the password, they encrypt names and give the token that tells a wrong password."""

from __future__ import annotations

import hmac
from functools import lru_cache, partial

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from untrusted_s3.crypto import names, xchacha20
from untrusted_s3.crypto.aes_siv import DeterministicCipher
from untrusted_s3.crypto.file_key import FileKey
from untrusted_s3.errors import DecryptionFailed, WrongPassword

_PREFIX = b"syncthing"
# A file's key is needed for its file info, and again when the file is read soon after.
_KEPT_KEYS = 256
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 32_768, 8, 1


class FolderKey:
    """The key (32 bytes) of the folder with an ID."""

    __slots__ = ("_file_key", "_names", "folder_id", "raw")

    def __init__(self, raw: bytes, folder_id: str) -> None:
        self.raw = raw
        self.folder_id = folder_id
        self._names = DeterministicCipher(raw)
        self._file_key = lru_cache(_KEPT_KEYS)(partial(FileKey.derive, raw))

    @classmethod
    def derive(cls, password: str, folder_id: str) -> FolderKey:
        """Derive the key from a password. Takes about 0.1 s and 32 MiB, so that guessing passwords is slow."""
        salt = _known_bytes(folder_id)
        scrypt = Scrypt(salt, xchacha20.KEY_SIZE, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
        return cls(scrypt.derive(password.encode()), folder_id)

    def token(self) -> bytes:
        """Return the folder's *encryption_password_token*."""
        return self._names.encrypt(_known_bytes(self.folder_id))

    def check_token(self, token: bytes) -> None:
        """Check that a folder's token was made with this key. Raises WrongPassword."""
        if not hmac.compare_digest(self.token(), token):
            raise WrongPassword(f"wrong password for the folder {self.folder_id!r}")

    def encrypt_name(self, name: str) -> str:
        """Return the encrypted name of a file, which is always the same for the same name."""
        return names.to_path(self._names.encrypt(name.encode()))

    def decrypt_name(self, encrypted_name: str) -> str:
        """Return the plain name. It comes from a key holder, but may still be a harmful path.

        Raises DecryptionFailed.
        """
        try:
            return self._names.decrypt(names.from_path(encrypted_name)).decode()
        except UnicodeDecodeError as error:
            raise DecryptionFailed(f"the plain name of {encrypted_name!r} is not UTF-8") from error

    def file_key(self, name: str) -> FileKey:
        """Return the key of the file with that plain name."""
        return self._file_key(name)


def _known_bytes(folder_id: str) -> bytes:
    return _PREFIX + folder_id.encode()
