"""The trailer of an object: the file info that follows the blocks, and its length (docs/format.md, "Objects").

A receive-encrypted folder of Syncthing keeps the same bytes at the end of each file (v2.1.3
lib/model/sharedpullerstate.go, writeEncryptionTrailer).
"""

from __future__ import annotations

import struct

from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import DataError, ProtocolError
from untrusted_s3.objects.naming import content_hash

_LENGTH = struct.Struct(">I")


def encode_trailer(file_info: FileInfo) -> bytes:
    """Return the file info as received, followed by its length in 4 bytes, big endian."""
    return file_info.raw + _LENGTH.pack(len(file_info.raw))


def check_trailer(trailer: bytes, file_info: FileInfo) -> FileInfo:
    """Return the file info in a trailer, which may differ from `file_info` in all but the name and the content.

    Raises DataError where the trailer is damaged or describes another file or another content.
    """
    body = trailer[: -_LENGTH.size]
    if len(trailer) < _LENGTH.size or _LENGTH.unpack_from(trailer, len(body)) != (len(body),):
        raise DataError("the trailer of its object states another length")
    try:
        found = parse_file_info(body)
    except ProtocolError as error:
        raise DataError(f"the trailer of its object is damaged: {error}") from error
    if found.name != file_info.name or content_hash(found) != content_hash(file_info):
        raise DataError("the trailer of its object speaks of another content")
    return found
