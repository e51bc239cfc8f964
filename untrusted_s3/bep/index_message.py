"""The messages Index and IndexUpdate (BEP specification, "Index and Index Update").

A general decoder makes an object of every entry of a list, and an entry may be two bytes long: a message of 60 MB would
take gigabytes. This module counts entries while it reads them and copies their bytes without parsing them.
"""

from __future__ import annotations

from untrusted_s3.bep import constants
from untrusted_s3.bep.wire import LENGTH_DELIMITED, VARINT, fields
from untrusted_s3.errors import RemoteProtocolError

_FOLDER, _FILES, _LAST_SEQUENCE, _PREV_SEQUENCE = 1, 2, 3, 4


def decode_index(body: bytes | bytearray) -> tuple[str, tuple[bytes, ...], int, int]:
    """Return folder ID, serialized file infos, last_sequence and prev_sequence. Raises RemoteProtocolError."""
    folder, files, numbers = "", [], {_LAST_SEQUENCE: 0, _PREV_SEQUENCE: 0}
    try:
        for field, wire_type, value, start in fields(body, constants.MAX_INDEX_FIELDS):
            if field == _FILES and wire_type == LENGTH_DELIMITED:
                files.append(bytes(body[start : start + value]))
                if len(files) > constants.MAX_INDEX_FILES:
                    raise RemoteProtocolError(f"an index message of more than {constants.MAX_INDEX_FILES} file infos")
            elif field == _FOLDER and wire_type == LENGTH_DELIMITED:
                folder = str(body[start : start + value], "utf-8")
            elif field in numbers and wire_type == VARINT:
                numbers[field] = value - (1 << 64) if value >> 63 else value
    except ValueError as error:  # UnicodeDecodeError is one
        raise RemoteProtocolError(f"invalid Index: {error}") from error
    return folder, tuple(files), numbers[_LAST_SEQUENCE], numbers[_PREV_SEQUENCE]
