"""File infos as Syncthing makes them for an untrusted device, without its crypto."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import MIN_ENCRYPTED_BLOCK_SIZE, TOKEN_SIZE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer

SMALLEST_BLOCK = MIN_ENCRYPTED_BLOCK_SIZE


def device(number: int) -> DeviceID:
    """Return the ID of a made-up device."""
    return DeviceID(hashlib.sha256(b"device %d" % number).digest())


@functools.lru_cache(1000)
def encrypted_name(name: str | int) -> str:
    """Return the encrypted name of a made-up plain one."""
    digits = base64.b32hexencode(hashlib.sha256(str(name).encode()).digest()[:20]).decode().rstrip("=")
    return f"{digits[0]}.syncthing-enc/{digits[1:3]}/{digits[3:]}"


def block_token(name: str, number: int, content: int = 0) -> bytes:
    """Return the token of a made-up block."""
    return hashlib.shake_128(f"{name} {number} {content}".encode()).digest(TOKEN_SIZE)


def _parsed(message: pb.FileInfo) -> FileInfo:
    return parse_file_info(message.SerializeToString())


def _message(name: str | int, kind: pb.FileInfoType, version: int, sequence: int) -> pb.FileInfo:
    return pb.FileInfo(
        name=encrypted_name(name),
        type=kind,
        permissions=0o644,
        modified_s=1234567890,
        version=pb.Vector(counters=[pb.Counter(id=1, value=version)]),
        sequence=sequence,
        encrypted=f"nonce, ciphertext and tag of {name} {version}".encode(),
    )


def file(
    name: str | int,
    version: int = 1,
    *,
    sizes: Sequence[int] = (SMALLEST_BLOCK,),
    sequence: int = 0,
    content: int = 0,
) -> FileInfo:
    """Return a file of blocks of these sizes. Another `content` makes other tokens."""
    message = _message(name, pb.FILE, version, sequence)
    offset = 0
    for number, size in enumerate(sizes):
        message.blocks.append(pb.BlockInfo(offset=offset, size=size, hash=block_token(message.name, number, content)))
        offset += size
    message.size = offset
    return _parsed(message)


def directory(name: str | int, version: int = 1, *, sequence: int = 0) -> FileInfo:
    """Return a directory. A symlink looks the same."""
    return _parsed(_message(name, pb.DIRECTORY, version, sequence))


def deleted(name: str | int, version: int = 1, *, sequence: int = 0) -> FileInfo:
    """Return a deleted file."""
    message = _message(name, pb.FILE, version, sequence)
    message.deleted = True
    return _parsed(message)


def plaintext(name: str, version: int = 1, *, sequence: int = 0) -> bytes:
    """Return the file info that a peer without a password would send."""
    message = _message(name, pb.FILE, version, sequence)
    message.name = name
    message.encrypted = b""
    message.size = 3
    message.blocks.append(pb.BlockInfo(offset=0, size=3, hash=hashlib.sha256(b"abc").digest()))
    return message.SerializeToString()


def entry(file_info: FileInfo) -> Entry:
    """Return the log entry of a file info, with a made-up object if it has data."""
    if not file_info.has_data:
        return Entry(file_info, None)
    size = file_info.message.size + len(encode_trailer(file_info))
    return Entry(file_info, StoredObject(content_hash(file_info), size, 0, (hash_number(file_info.raw),)))


def hash_number(data: bytes) -> int:
    """Return 32 bits in place of a checksum."""
    return int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
