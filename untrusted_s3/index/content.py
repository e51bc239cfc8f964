"""What tells whether two files have the same content (docs/format.md, "Keys")."""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from untrusted_s3.bep.file_info import FileInfo

CONTENT_HASH_SIZE: Final = 32  # digits


def content_hash(file_info: FileInfo) -> str:
    """Return 32 hex digits that are equal for equal block lists.

    They are the beginning of the SHA-256 over each block's size (8 bytes, big endian), the length of its token
    (2 bytes, big endian) and its token, in order.
    """
    digest = hashlib.sha256()
    for block in file_info.message.blocks:
        digest.update(struct.pack(">QH", block.size, len(block.hash)))
        digest.update(block.hash)
    return digest.hexdigest()[:CONTENT_HASH_SIZE]
