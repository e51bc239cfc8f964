"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) from the ChaCha20 and ChaCha20-Poly1305 of `cryptography`, at its speed.

`HChaCha20` makes a key of its own for each of the long nonces; with that key it is ChaCha20-Poly1305 (section 2.3).
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from untrusted_s3.errors import DecryptionFailed

Buffer = bytes | bytearray | memoryview

KEY_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16

_BLOCK = struct.Struct("<16I")
_SUBKEY = struct.Struct("<8I")
_CONSTANTS = b"expand 32-byte k"


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """The subkey (32 bytes) of a key (32 bytes) and a nonce (16 bytes).

    ChaCha20 adds its initial state to the state after the rounds, and HChaCha20 does not (section 2.2): so the latter
    is the former's first block of keystream less the initial state, in the words 0 to 3 and 12 to 15.
    """
    # As `cryptography` has it, the 16 bytes are the initial block counter and the nonce, that is, the words 12 to 15.
    keystream = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(_BLOCK.size))
    added = _BLOCK.unpack(keystream)
    initial = _BLOCK.unpack(_CONSTANTS + key + nonce)
    return _SUBKEY.pack(*((added[word] - initial[word]) & 0xFFFFFFFF for word in (0, 1, 2, 3, 12, 13, 14, 15)))


def encrypt(key: bytes, nonce: bytes, plaintext: Buffer, associated_data: bytes | None = None) -> bytes:
    """The ciphertext and its tag (16 bytes). A nonce (24 bytes) serves once with one key."""
    cipher, short_nonce = _cipher(key, nonce)
    return cipher.encrypt(short_nonce, plaintext, associated_data)


def decrypt(key: bytes, nonce: bytes, ciphertext: Buffer, associated_data: bytes | None = None) -> bytes:
    """The plaintext of a ciphertext with its tag. Raises DecryptionFailed."""
    cipher, short_nonce = _cipher(key, nonce)
    try:
        return cipher.decrypt(short_nonce, ciphertext, associated_data)
    except InvalidTag as error:
        raise DecryptionFailed("the authentication tag does not fit") from error


def _cipher(key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
