"""File keys: block tokens, blocks and file infos of one file."""

from __future__ import annotations

import hashlib
import os
import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from untrusted_s3.bep.constants import BLOCK_OVERHEAD, MIN_ENCRYPTED_BLOCK_SIZE
from untrusted_s3.crypto import xchacha20
from untrusted_s3.crypto.aes_siv import DeterministicCipher
from untrusted_s3.crypto.xchacha20 import Buffer
from untrusted_s3.errors import DecryptionFailed

_SALT = b"syncthing"
_SMALLEST_BLOCK = MIN_ENCRYPTED_BLOCK_SIZE - BLOCK_OVERHEAD


def encrypted_block_size(size: int) -> int:
    """Return the size of the encrypted block of `size` bytes of plaintext: padding to 1,024, a nonce and a tag."""
    return max(size, _SMALLEST_BLOCK) + BLOCK_OVERHEAD


class FileKey:
    """The key (32 bytes) of all versions of the file under one name."""

    __slots__ = ("_tokens", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._tokens = DeterministicCipher(raw)

    @classmethod
    def derive(cls, folder_key: bytes, name: str) -> FileKey:
        """Derive the key of the file with a plain name from its folder's key."""
        return cls(HKDF(SHA256(), xchacha20.KEY_SIZE, salt=_SALT, info=None).derive(folder_key + name.encode()))

    # Any bytes: the real file info, or a padded block

    def encrypt(self, plaintext: Buffer) -> bytes:
        """Return a random nonce (24 bytes), the ciphertext and its tag (16 bytes)."""
        nonce = os.urandom(xchacha20.NONCE_SIZE)
        return nonce + xchacha20.encrypt(self.raw, nonce, plaintext)

    def decrypt(self, data: Buffer) -> bytes:
        """Return the plaintext of a result of `encrypt`. Raises DecryptionFailed."""
        if len(data) < BLOCK_OVERHEAD:
            raise DecryptionFailed(f"{len(data)} bytes are too few for a nonce and a tag")
        view = memoryview(data)
        nonce = bytes(view[: xchacha20.NONCE_SIZE])
        return xchacha20.decrypt(self.raw, nonce, view[xchacha20.NONCE_SIZE :])

    # Tokens

    def block_token(self, block_hash: bytes, offset: int | None) -> bytes:
        """Return the token (48 bytes) of a block with this SHA-256 at `offset` of the plain file.

        With None, return the token that old peers make, which does not depend on the offset.
        """
        return self._tokens.encrypt(block_hash, *_associated_data(offset))

    def block_hash(self, token: bytes, offset: int) -> bytes:
        """Return the SHA-256 of the plain block whose token this is at `offset` of the plain file.

        Accepts the tokens of old peers. Raises DecryptionFailed.
        """
        try:
            return self._tokens.decrypt(token, *_associated_data(offset))
        except DecryptionFailed:
            return self._tokens.decrypt(token)

    # Blocks

    def encrypt_block(self, block: Buffer) -> bytes:
        """Return the encrypted block. A shorter block is padded with random bytes to 1,024."""
        padding = _SMALLEST_BLOCK - len(block)
        return self.encrypt(bytes(block) + os.urandom(padding) if padding > 0 else block)

    def decrypt_block(self, data: Buffer, size: int, block_hash: bytes) -> bytes:
        """Return the plain block of `size` bytes with this SHA-256. Raises DecryptionFailed."""
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
