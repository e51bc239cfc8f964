"""Deterministic encryption: AES-SIV (RFC 5297), as Syncthing uses it for names, block tokens and password tokens."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from untrusted_s3.errors import DecryptionFailed

# Syncthing's library authenticates the nonce as the last associated string, even an empty one. An empty string and no
# string make different tags.
_NONCE = b""


class DeterministicCipher:
    """AES-SIV with one key of 32 bytes: an AES-128 key for the tag and one for the encryption."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def encrypt(self, plaintext: bytes, *associated_data: bytes) -> bytes:
        """Return the tag (16 bytes) and the ciphertext. Equal input makes equal output."""
        return self._cipher.encrypt(plaintext, [*associated_data, _NONCE])

    def decrypt(self, ciphertext: bytes, *associated_data: bytes) -> bytes:
        """Return the plaintext of a tag and its ciphertext. Raises DecryptionFailed."""
        try:
            return self._cipher.decrypt(ciphertext, [*associated_data, _NONCE])
        except (InvalidTag, ValueError) as error:
            raise DecryptionFailed("the authentication tag does not fit") from error
