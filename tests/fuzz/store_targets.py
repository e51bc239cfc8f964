"""Readers of records in the bucket."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

from tests.file_infos import device
from tests.fuzz.targets import short
from untrusted_s3.errors import DataError
from untrusted_s3.identity.sealed import SealedIdentity
from untrusted_s3.store.json_fields import InvalidFieldError, parse_object
from untrusted_s3.store.losses import Claimed, Forgotten, LossRecord, LostSegments
from untrusted_s3.store.records import FolderRecord, NodeRecord, PeerRecord, StoreRecord

_READERS: Sequence[Callable[[dict[str, Any]], Any]] = (
    StoreRecord.from_json,
    PeerRecord.from_json,
    NodeRecord.from_json,
    FolderRecord.from_json,
    SealedIdentity.from_json,
    LossRecord.from_json,
)
_LOSS = 5
_LOSS_BYTE = 0xA0  # and the next 15


def records(data: bytes) -> str:
    """Read a record. The first byte says of which kind. What is taken is the same when it is written and read again."""
    reader = _kind(data[0]) if data else 0
    try:
        record = _READERS[reader](parse_object(data[1:]))
    except (InvalidFieldError, DataError) as error:
        return f"{reader} {short(error)[:36]}"
    written = json.dumps(record.to_json()).encode()
    assert _READERS[reader](parse_object(written)) == record
    return f"{reader} taken {_shape(record)}"


def _kind(byte: int) -> int:
    """Return which record it is. What a byte meant before there were losses, it still means: the corpus is older."""
    return _LOSS if byte & 0xF0 == _LOSS_BYTE else byte % _LOSS


def _shape(record: Any) -> str:
    """Return which fields of a record have a value."""
    return "".join(str(int(bool(getattr(record, name)))) for name in record.__slots__)


@functools.cache
def record_seeds() -> list[bytes]:
    """Return a sound record of each kind, and some that use all fields."""
    sealed = SealedIdentity("0" * 32, "name", device(1), 2, 8, 1, bytes(16), bytes(12), bytes(40))
    loss = LossRecord(
        4,
        device(1),
        1_700_000_000,
        8,
        (LostSegments(2, 3, 7, 5), LostSegments(5, 4, 20, 0)),
        (f"{3:020d}-{'c' * 32}",),
        Forgotten(9, 40, 6),
        Claimed(8, 30, 20),
        "d" * 32,
    )
    sound: list[tuple[int, Any]] = [
        (0, StoreRecord("a" * 32)),
        (1, PeerRecord(device(1), "peer", ("tcp://127.0.0.1:22000", "dynamic"), ("folder", "é"))),
        (1, PeerRecord(device(2))),
        (2, NodeRecord(device(1), "gateway", 1_700_000_000, "b" * 32)),
        (3, FolderRecord("folder", "Label", bytes(40), 5, removed=True)),
        (3, FolderRecord("folder", "", bytes(40), 2**63)),
        (4, sealed),
        (_LOSS_BYTE, loss),
        (_LOSS_BYTE, LossRecord(1, device(2), 0, loss_id="d" * 32)),
    ]
    return [bytes([kind]) + json.dumps(record.to_json()).encode() for kind, record in sound]


RECORD_TOKENS = (
    *(b'"%s"' % name.encode() for name in ("format", "version", "store_id", "device_id", "name", "addresses", "share")),
    *(b'"%s"' % name.encode() for name in ("time", "instance", "id", "label", "password_token", "index_id", "removed")),
    *(b'"%s"' % name.encode() for name in ("position", "writer", "segments", "damaged", "forgotten", "claimed")),
    *(b'"%s"' % name.encode() for name in ("first", "last", "sequence", "entries", "known")),
    *(b'"%s"' % name.encode() for name in ("scrypt", "n", "r", "p", "salt", "nonce", "sealed", "sha256")),
    *(b"null", b"true", b"false", b"[]", b"{}", b'""', b'"\\ud800"', b"1e400", b"NaN", b"-0", b"1.0", b'"a":', b","),
    *(b"[" * 200, b'{"a":' * 200, b"9" * 5000, b"\\u0000", b"\xef\xbb\xbf", b'"\\x"', b"0x10", b"Infinity", b"1E5"),
)
