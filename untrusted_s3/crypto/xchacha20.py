"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), made of the ChaCha20 and ChaCha20-Poly1305 of `cryptography`.

HChaCha20 derives a subkey from the key and the long nonce; the rest is ChaCha20-Poly1305 with the subkey (section 2.3).
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

_BLOCK_SIZE = 64
_ENDS = struct.Struct("<4I32x4I")
_SUBKEY = struct.Struct("<8I")
_WORDS = struct.Struct("<4I")
_CONSTANTS = _WORDS.unpack(b"expand 32-byte k")
_MASK = 0xFFFF_FFFF


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the subkey (32 bytes) of a key (32 bytes) and a nonce (16 bytes).

    ChaCha20 adds its initial state to the state after the rounds, HChaCha20 does not (section 2.2). So HChaCha20 is the
    first block of ChaCha20's keystream minus the initial state, in the words 0 to 3 and 12 to 15.
    """
    # The 16 bytes are the words 12 to 15; `cryptography` takes them as the initial block counter and the nonce.
    keystream = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(_BLOCK_SIZE))
    w0, w1, w2, w3, w12, w13, w14, w15 = _ENDS.unpack(keystream)
    c0, c1, c2, c3 = _CONSTANTS
    n0, n1, n2, n3 = _WORDS.unpack(nonce)
    return _SUBKEY.pack(  # word by word: each block and each file info needs it
        (w0 - c0) & _MASK,
        (w1 - c1) & _MASK,
        (w2 - c2) & _MASK,
        (w3 - c3) & _MASK,
        (w12 - n0) & _MASK,
        (w13 - n1) & _MASK,
        (w14 - n2) & _MASK,
        (w15 - n3) & _MASK,
    )


def encrypt(key: bytes, nonce: bytes, plaintext: Buffer, associated_data: bytes | None = None) -> bytes:
    """Return the ciphertext and its tag (16 bytes). A nonce (24 bytes) must be used once only with one key."""
    cipher, short_nonce = _cipher(key, nonce)
    return cipher.encrypt(short_nonce, plaintext, associated_data)


def decrypt(key: bytes, nonce: bytes, ciphertext: Buffer, associated_data: bytes | None = None) -> bytes:
    """Return the plaintext of a ciphertext with its tag. Raises DecryptionFailed."""
    cipher, short_nonce = _cipher(key, nonce)
    try:
        return cipher.decrypt(short_nonce, ciphertext, associated_data)
    except InvalidTag as error:
        raise DecryptionFailed("the authentication tag does not fit") from error


def _cipher(key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
