"""File infos: the real one, and the fake around it that an untrusted device sees (Syncthing v2.1.3
lib/protocol/encryption.go).

Only the field `encrypted` of a fake, which holds the real one, is authenticated. An untrusted device can change all
other fields, so they count only where they fit the real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import BLOCK_OVERHEAD, MAX_BLOCK_SIZE
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import total
from untrusted_s3.crypto.file_key import FileKey, encrypted_block_size
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DecryptionFailed, InconsistentFileInfo
from untrusted_s3.units import KIB

_FAKE_PERMISSIONS = 0o644
_FAKE_MODIFIED_S = 1234567890
_FAKE_COUNTER_ID = 1
_SMALLEST_BLOCK_SIZE = 128 * KIB
_HASH_SIZE = 32


def encrypt_file_info(folder_key: FolderKey, real: pb.FileInfo) -> pb.FileInfo:
    """Return the fake around a real file info.

    Only the field `encrypted` differs from call to call, for it begins with a random nonce.
    """
    key = folder_key.file_key(real.name)
    fake = pb.FileInfo(
        name=folder_key.encrypt_name(real.name),
        type=_fake_type(real),
        permissions=_FAKE_PERMISSIONS,
        modified_s=_FAKE_MODIFIED_S,
        deleted=real.deleted,
        invalid=real.invalid,
        version=fake_version(real),
        sequence=real.sequence,
        encrypted=key.encrypt(real.SerializeToString()),
    )
    if real.type == pb.FILE:
        fake.blocks.extend(_fake_blocks(key, real.blocks))
        fake.size = sum(block.size for block in fake.blocks)
        fake.block_size = max(real.block_size, _SMALLEST_BLOCK_SIZE) + BLOCK_OVERHEAD
    return fake


def decrypt_file_info(folder_key: FolderKey, fake: FileInfo, name: str | None = None) -> pb.FileInfo:
    """Return the real file info, having checked that name, type, version, blocks and tokens of the fake fit it.

    `name` is the plain name, if it has been decrypted already. The sequence number is that of the device that encrypted
    the file info. Raises DecryptionFailed or InconsistentFileInfo.
    """
    try:
        if name is None:
            name = folder_key.decrypt_name(fake.name)
        key = folder_key.file_key(name)
        real = pb.FileInfo.FromString(key.decrypt(fake.message.encrypted))
    except DecryptionFailed as error:
        raise DecryptionFailed(f"the file info of {fake.name} cannot be decrypted: {error}") from error
    except DecodeError as error:
        raise DecryptionFailed(f"the real file info of {fake.name} cannot be parsed: {error}") from error
    if real.name != name:
        raise InconsistentFileInfo(f"{name!r} has the file info of {real.name!r}")
    _check(key, fake.message, real)
    return real


def fake_version(real: pb.FileInfo) -> pb.Vector:
    """Return the version of the fake: one counter, the sum of the real ones, which rises with every change."""
    value = total(real.version) & 0xFFFF_FFFF_FFFF_FFFF
    return pb.Vector(counters=[pb.Counter(id=_FAKE_COUNTER_ID, value=value)])


def _fake_type(real: pb.FileInfo) -> pb.FileInfoType:
    return pb.FILE if real.type == pb.FILE else pb.DIRECTORY


def _fake_blocks(key: FileKey, blocks: Iterable[pb.BlockInfo]) -> Iterator[pb.BlockInfo]:
    offset = 0
    for block in blocks:
        size = encrypted_block_size(block.size)
        yield pb.BlockInfo(offset=offset, size=size, hash=key.block_token(block.hash, block.offset))
        offset += size


def _check(key: FileKey, fake: pb.FileInfo, real: pb.FileInfo) -> None:
    if fake.type != _fake_type(real):
        raise InconsistentFileInfo(f"{real.name!r}: its outside is of another type")
    if fake.deleted != real.deleted:
        raise InconsistentFileInfo(f"{real.name!r}: its outside and its inside differ on whether it is deleted")
    if fake.version != fake_version(real):
        raise InconsistentFileInfo(f"{real.name!r}: its outside has another version")
    if fake.invalid or real.invalid:
        return  # no device pulls it, and its blocks may be missing on either side
    if len(fake.blocks) != len(real.blocks):
        raise InconsistentFileInfo(f"{real.name!r}: {len(fake.blocks)} encrypted blocks for {len(real.blocks)}")
    offset = 0
    for outer, inner in zip(fake.blocks, real.blocks, strict=True):
        if inner.offset != offset or not 0 <= inner.size <= MAX_BLOCK_SIZE or len(inner.hash) != _HASH_SIZE:
            raise InconsistentFileInfo(f"{real.name!r}: its block at {inner.offset} is impossible")
        if outer.size != encrypted_block_size(inner.size):
            raise InconsistentFileInfo(f"{real.name!r}: a block of {outer.size} bytes for one of {inner.size}")
        if outer.hash != key.block_token(inner.hash, offset) and outer.hash != key.block_token(inner.hash, None):
            raise InconsistentFileInfo(f"{real.name!r}: the token of its block at {inner.offset} is another block's")
        offset += inner.size
    if real.type == pb.FILE and offset != real.size:
        raise InconsistentFileInfo(f"{real.name!r}: blocks of {offset} bytes for a size of {real.size}")
