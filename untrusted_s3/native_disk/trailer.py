"""The trailer that a native untrusted device writes behind the blocks of a file.

It differs from that of an object in the store: before a device writes it, its database has added the hash of the block
list to the file info (v1.29.5 lib/db/transactions.go, putFile; v2.1.3 internal/db/sqlite/folderdb_update.go, Update).
A native device compares the size of a file on its disk with the one in its database, so the trailer has to be as long
as its own.
"""

from __future__ import annotations

import hashlib

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.objects.trailer import encode_trailer

# Syncthing 1 hashes the weak hash of each block as well, which encrypted blocks do not have (v1.29.5
# lib/protocol/bep_fileinfo.go, BlocksHash).
_NO_WEAK_HASH = bytes(4)
# The field `platform`, empty: Syncthing writes it into every file info since 1.22.
_NO_PLATFORM = b"\x72\x00"


def native_trailer(file_info: FileInfo) -> bytes:
    """Return the file info with the hash of its blocks, as long as Syncthing's, and its length in 4 bytes."""
    message = pb.FileInfo()
    message.CopyFrom(file_info.message)
    digest = hashlib.sha256()
    for block in message.blocks:
        digest.update(block.hash)
        digest.update(_NO_WEAK_HASH)
    message.blocks_hash = digest.digest()
    raw = message.SerializeToString(deterministic=True)
    return encode_trailer(FileInfo(raw if message.platform else raw + _NO_PLATFORM, message))
