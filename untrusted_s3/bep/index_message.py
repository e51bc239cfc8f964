"""Index and IndexUpdate, decoded by hand, and a look at file infos before they are parsed.

A general decoder makes an object of every entry of a list, and an entry may be two bytes long: a message of 60 MB would
take gigabytes. Here entries are counted first, and those that cannot be real end the connection.
"""

from __future__ import annotations

from collections.abc import Iterator

from untrusted_s3 import limits
from untrusted_s3.bep.response import decode_varint
from untrusted_s3.errors import RemoteProtocolError

# A block info with a token has at least a size and 48 bytes of token, with tags and lengths.
_SMALLEST_BLOCK_INFO = 48
# File infos up to this size are parsed without a look: they cannot take much.
_HARMLESS = 64 * limits.KIB

_VERSION, _BLOCKS = 9, 16
_FOLDER, _FILES, _LAST_SEQUENCE, _PREV_SEQUENCE = 1, 2, 3, 4


def decode_index(body: bytes | bytearray) -> tuple[str, tuple[bytes, ...], int, int]:
    """Folder ID, serialized file infos, last_sequence and prev_sequence. Raises RemoteProtocolError."""
    folder, files, numbers = "", [], {_LAST_SEQUENCE: 0, _PREV_SEQUENCE: 0}
    try:
        for field, wire_type, value, start in _fields(body):
            if field == _FILES and wire_type == 2:
                files.append(bytes(body[start : start + value]))
                if len(files) > limits.MAX_INDEX_FILES:
                    raise RemoteProtocolError(f"an index message of more than {limits.MAX_INDEX_FILES} file infos")
            elif field == _FOLDER and wire_type == 2:
                folder = str(body[start : start + value], "utf-8")
            elif field in numbers and wire_type == 0:
                numbers[field] = value - (1 << 64) if value >> 63 else value
    except ValueError as error:  # UnicodeDecodeError is one
        raise RemoteProtocolError(f"an Index that is none: {error}") from error
    return folder, tuple(files), numbers[_LAST_SEQUENCE], numbers[_PREV_SEQUENCE]


def check_shape(raw: bytes) -> None:
    """Raises RemoteProtocolError for a large file info that would take far more memory than its size."""
    if len(raw) <= _HARMLESS:
        return
    most = len(raw) // _SMALLEST_BLOCK_INFO
    blocks = 0
    try:
        for field, _, size, _ in _fields(raw):
            if field == _BLOCKS:
                blocks += 1
                if blocks > most:
                    raise RemoteProtocolError("a file info with blocks that are none")
            elif field == _VERSION and size > _HARMLESS:
                raise RemoteProtocolError(f"a file info with a version of {size} bytes")
    except ValueError as error:
        raise RemoteProtocolError(f"a file info that is none: {error}") from error


def _fields(data: bytes | bytearray) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and value of each field; for one with a length, that length and where its bytes start.

    Raises ValueError for what is no protobuf message.
    """
    position, end = 0, len(data)
    while position < end:
        tag, position = decode_varint(data, position)
        wire_type = tag & 7
        if not 8 <= tag < 1 << 32:
            raise ValueError(f"field tag {tag}")
        if wire_type in (0, 2):
            value, start = decode_varint(data, position)
            value &= 0xFFFF_FFFF_FFFF_FFFF
            position = start + value if wire_type == 2 else start
        elif wire_type in (1, 5):
            value, start = 0, position
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if position > end:
            raise ValueError("a field past the end")
        yield tag >> 3, wire_type, value, start
