"""What others than the operator may read of an error: peers in a Close, clients of HTTP on the pages.

The text of an error can hold presigned URLs, local paths, and messages of SQLite or of the system. So each kind of
error has a fixed phrase. Only violations of the protocol are told in words, which are this program's own.
"""

from __future__ import annotations

from typing import Final

from untrusted_s3.errors import LocalDiskFailed, RemoteProtocolError, StateDamaged, StoreError, TooManyConnections
from untrusted_s3.structured_logging import printable, redact_text

INTERNAL_ERROR: Final = "internal error"
LOCAL_DISK_FAILED: Final = "the local disk is full or fails"
STATE_DAMAGED: Final = "the local state is damaged and is made again from the store"
STORE_NOT_AVAILABLE: Final = "the store is not available"
TOO_MANY_CONNECTIONS: Final = "too many connections"

_MAX_LENGTH = 200


def public_reason(error: BaseException) -> str:
    """Return what a peer or a client of HTTP may be told of an error."""
    match error:
        case RemoteProtocolError():
            return printable(redact_text(str(error)))[:_MAX_LENGTH]
        case TooManyConnections():
            return TOO_MANY_CONNECTIONS
        case StoreError() | TimeoutError():
            return STORE_NOT_AVAILABLE
        case StateDamaged():
            return STATE_DAMAGED
        case LocalDiskFailed():
            return LOCAL_DISK_FAILED
        case _:
            return INTERNAL_ERROR
