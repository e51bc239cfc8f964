"""The key of one file: its block tokens, its blocks and its file info."""

from __future__ import annotations

import hashlib
import os
import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from untrusted_s3 import limits
from untrusted_s3.crypto import xchacha20
from untrusted_s3.crypto.aes_siv import DeterministicCipher
from untrusted_s3.crypto.xchacha20 import Buffer
from untrusted_s3.errors import DecryptionFailed

_SALT = b"syncthing"
_SMALLEST_BLOCK = limits.MIN_ENCRYPTED_BLOCK_SIZE - limits.BLOCK_OVERHEAD


def encrypted_block_size(size: int) -> int:
    """Bytes of the encrypted block that holds `size` bytes of plaintext: nonce and tag, and padding to 1,024 before."""
    return max(size, _SMALLEST_BLOCK) + limits.BLOCK_OVERHEAD


class FileKey:
    """The key (32 bytes) of all versions of the file under one name."""

    __slots__ = ("_tokens", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._tokens = DeterministicCipher(raw)

    @classmethod
    def derive(cls, folder_key: bytes, name: str) -> FileKey:
        """The key of the file that is called `name` in plain, in the folder with that key."""
        return cls(HKDF(SHA256(), xchacha20.KEY_SIZE, salt=_SALT, info=None).derive(folder_key + name.encode()))

    # Any bytes: the real file info, or a block as it is

    def encrypt(self, plaintext: Buffer) -> bytes:
        """A random nonce (24 bytes), the ciphertext and its tag (16 bytes)."""
        nonce = os.urandom(xchacha20.NONCE_SIZE)
        return nonce + xchacha20.encrypt(self.raw, nonce, plaintext)

    def decrypt(self, data: Buffer) -> bytes:
        """The plaintext of what `encrypt` made. Raises DecryptionFailed."""
        if len(data) < limits.BLOCK_OVERHEAD:
            raise DecryptionFailed(f"{len(data)} bytes are too few for a nonce and a tag")
        view = memoryview(data)
        nonce = bytes(view[: xchacha20.NONCE_SIZE])
        return xchacha20.decrypt(self.raw, nonce, view[xchacha20.NONCE_SIZE :])

    # Tokens

    def block_token(self, block_hash: bytes, offset: int | None) -> bytes:
        """The token (48 bytes) of a block with this SHA-256 at `offset` of the plain file.

        None stands for the tokens of old peers, which do not depend on the offset.
        """
        return self._tokens.encrypt(block_hash, *_associated_data(offset))

    def block_hash(self, token: bytes, offset: int) -> bytes:
        """The SHA-256 of the plain block that `token` stands for at `offset` of the plain file.

        Tokens of old peers are taken as well. Raises DecryptionFailed.
        """
        try:
            return self._tokens.decrypt(token, *_associated_data(offset))
        except DecryptionFailed:
            return self._tokens.decrypt(token)

    # Blocks

    def encrypt_block(self, block: Buffer) -> bytes:
        """The encrypted block, its plaintext filled up with random bytes to 1,024."""
        padding = _SMALLEST_BLOCK - len(block)
        return self.encrypt(bytes(block) + os.urandom(padding) if padding > 0 else block)

    def decrypt_block(self, data: Buffer, size: int, block_hash: bytes) -> bytes:
        """The `size` bytes of a plain block, which have this SHA-256. Raises DecryptionFailed."""
        if len(data) != encrypted_block_size(size):
            raise DecryptionFailed(f"{len(data)} bytes cannot be an encrypted block of {size} bytes")
        block = self.decrypt(data)
        if size < len(block):
            block = block[:size]
        if hashlib.sha256(block).digest() != block_hash:
            raise DecryptionFailed("the block is genuine, but another one: its SHA-256 differs")
        return block


def _associated_data(offset: int | None) -> tuple[bytes, ...]:
    return () if offset is None else (struct.pack(">Q", offset),)
