"""Encrypted names: the ciphertext of a name as a path of base32hex digits with slashes at fixed places.

The path is `X.syncthing-enc/YY/`, where X and YY are the first digits, and components of up to 200 digits (Syncthing
v2.1.3 lib/protocol/encryption.go, slashify).
"""

from __future__ import annotations

import base64

from untrusted_s3.bep.file_info import is_encrypted_name
from untrusted_s3.errors import DecryptionFailed

_EXTENSION = ".syncthing-enc"
_COMPONENT = 200


def to_path(ciphertext: bytes) -> str:
    """Return the path of a ciphertext."""
    digits = base64.b32hexencode(ciphertext).decode("ascii").rstrip("=")
    rest = digits[3:]
    components = [rest[start : start + _COMPONENT] for start in range(0, len(rest), _COMPONENT)]
    return "/".join([digits[0] + _EXTENSION, digits[1:3], *components])


def from_path(path: str) -> bytes:
    """Return the ciphertext of a path. Raises DecryptionFailed for a path that `to_path` does not make.

    Syncthing itself accepts slashes anywhere, which would give one file several names.
    """
    if is_encrypted_name(path):
        digits = path.replace(_EXTENSION, "", 1).replace("/", "")
        number = int(digits, 32)  # base32hex has the digits of Python's base 32; much faster than `base64`
        spare = 5 * len(digits) % 8
        if number & ((1 << spare) - 1) == 0:
            return (number >> spare).to_bytes(5 * len(digits) // 8)
    raise DecryptionFailed(f"not in the form of an encrypted name: {path!r}")
