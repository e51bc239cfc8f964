"""File infos as an untrusted device gets them, and the rules that a peer's file info must keep.

The file infos of an encrypted folder are fakes around the real one (Syncthing untrusted devices specification; v2.1.3
lib/protocol/encryption.go): an encrypted name, a list of encrypted blocks, and the real file info as ciphertext.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.wire import encode_varint, fields, parse
from untrusted_s3.errors import FileInfoRefused, NotEncrypted, RemoteProtocolError
from untrusted_s3.units import KIB

# X.syncthing-enc/YY/ then components of 200 characters, the last one perhaps shorter.
_ENCRYPTED_NAME = re.compile(r"[0-9A-V]\.syncthing-enc/[0-9A-V]{2}((?:/[0-9A-V]{200})*(?:/[0-9A-V]{1,200})?)")
_SHORTEST_ENCRYPTED_NAME = 17  # bytes before base32: an AES-SIV tag and one byte of path
_SIZE_TAG = b"\x18"
_SEQUENCE_TAG = b"\x50"
_VERSION, _BLOCKS = 9, 16
_MOST_TRAILERS = 8
# The parsed message takes 1.4 to 2.4 times its serialized size, which stays in memory as well.
_MEMORY_FACTOR = 3
# A block info has at least a token of 48 bytes.
_SMALLEST_BLOCK_INFO = constants.TOKEN_SIZE
# File infos up to this size cannot take much memory, whatever is in them.
_HARMLESS = 64 * KIB
_VERSION_LIMIT = 1 << 63


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file info.

    Attributes:
        raw: The serialized message as received. Only a size that counts a trailer is corrected, by another `size`
            field at the end.
        message: The parsed message.
    """

    raw: bytes
    message: pb.FileInfo

    @property
    def name(self) -> str:
        """The encrypted name."""
        return self.message.name

    @property
    def memory_size(self) -> int:
        """About how many bytes it takes in memory."""
        return memory_size(len(self.raw))

    @property
    def has_data(self) -> bool:
        """Whether it has blocks to keep: a regular file that is neither deleted nor invalid."""
        return self.message.type == pb.FILE and not self.message.deleted and not self.message.invalid


def memory_size(serialized_size: int) -> int:
    """Return about how many bytes a parsed file info takes in memory together with its serialized form."""
    return _MEMORY_FACTOR * serialized_size


def with_sequence(raw: bytes, sequence: int) -> bytes:
    """Return a serialized file info with another sequence number and all else unchanged.

    Of a scalar field that occurs twice the last one counts (protobuf.dev, "Encoding", "Last One Wins"), so appending
    the field is enough and nothing is decoded.
    """
    return raw + _SEQUENCE_TAG + encode_varint(sequence)


def parse_file_info(raw: bytes, *, max_blocks: int = constants.MAX_FILE_BLOCKS) -> FileInfo:
    """Parse and check a file info of a peer.

    Raises FileInfoRefused for a file info that breaks a rule, and FolderRefused for one that is not encrypted, which
    ends the sharing of the folder with this peer. Raises RemoteProtocolError, which ends the connection, for bytes that
    are not a file info or would take far more memory than their size.
    """
    _check_shape(raw)
    info = _without_trailer_in_size(FileInfo(raw, parse(pb.FileInfo, raw)))
    message = info.message
    _check_encrypted(message)
    fault = (
        _fault_of_size(len(raw), len(message.blocks))
        or _fault_of_kind(message)
        or _fault_of_blocks(message, max_blocks)
    )
    if fault is not None:
        raise refusal(info, fault)
    return info


def check_version(info: FileInfo) -> None:
    """Check that a version is one that Syncthing makes for untrusted devices, which compare nothing else.

    That is one counter with id 1, the sum of the real ones (v2.1.3 lib/protocol/encryption.go, encryptFileInfo); other
    untrusted devices pass it on as they got it. From 2**63 on, a value is no sum of real ones. Nobody pulls an invalid
    file info, so its version does not matter.

    Raises FileInfoRefused.
    """
    if info.message.invalid:
        return
    counters = info.message.version.counters
    if len(counters) != 1 or counters[0].id != 1:
        raise refusal(info, f"a version of {len(counters)} counters, not of one with id 1")
    if counters[0].value >= _VERSION_LIMIT:
        raise refusal(info, f"a version of {counters[0].value}, which no changes add up to")


def refusal(info: FileInfo, reason: str) -> FileInfoRefused:
    """Return the error for a file info that is not taken."""
    return FileInfoRefused(info.name, info.message.sequence, reason)


def check_name(name: str) -> None:
    """Check that a name is a clean relative path (Syncthing v2.1.3 lib/protocol/protocol.go, checkFilename).

    Raises RemoteProtocolError.
    """
    fault = fault_of_name(name)
    if fault is not None:
        raise RemoteProtocolError(fault)


def fault_of_name(name: str) -> str | None:
    """Return why a name is no clean relative path, or None."""
    if len(name) > constants.MAX_NAME_SIZE:
        return f"a name of {len(name)} characters is too long"
    if "\0" in name or any(component in ("", ".", "..") for component in name.split("/")):
        return f"not a clean relative path: {name[:100]!r}"
    return None


def is_encrypted_name(name: str) -> bool:
    """Return whether a name has the form that Syncthing gives to encrypted names: base32hex with slashes at fixed
    places."""
    match = _ENCRYPTED_NAME.fullmatch(name)
    if match is None:
        return False
    digits = 3 + len(match[1].replace("/", ""))
    # base32 without padding never ends after 1, 3 or 6 digits of a group of 8.
    return digits % 8 in (0, 2, 4, 5, 7) and digits * 5 // 8 >= _SHORTEST_ENCRYPTED_NAME


def _check_shape(raw: bytes) -> None:
    """Refuse a large file info whose parsed form would take far more memory than its bytes, or far more time."""
    if len(raw) <= _HARMLESS:
        return
    most = len(raw) // _SMALLEST_BLOCK_INFO
    blocks = 0
    try:
        for field, _, size, _ in fields(raw, most + constants.MAX_FILE_INFO_FIELDS):
            if field == _BLOCKS:
                blocks += 1
                if blocks > most:
                    raise RemoteProtocolError("a file info with impossibly small blocks")
            elif field == _VERSION and size > _HARMLESS:
                raise RemoteProtocolError(f"a file info with a version of {size} bytes")
    except ValueError as error:
        raise RemoteProtocolError(f"invalid FileInfo: {error}") from error


def _without_trailer_in_size(info: FileInfo) -> FileInfo:
    """Correct a size that counts trailers.

    A receive-encrypted Syncthing before 1.23.5 counts the trailer that it keeps behind the blocks as part of the size,
    and one that got the file from such a device counts another (Syncthing issue 8556). Trusted devices never look at
    this size.
    """
    message = info.message
    if not info.has_data or not message.blocks or not message.encrypted:
        return info
    end = message.blocks[-1].offset + message.blocks[-1].size
    if not len(message.encrypted) < message.size - end <= _MOST_TRAILERS * (len(info.raw) + 4):
        return info
    message.size = end
    return FileInfo(info.raw + _SIZE_TAG + encode_varint(end), message)


def _check_encrypted(message: pb.FileInfo) -> None:
    # Syncthing encrypts symlinks as directories: every other type is unencrypted.
    is_fake = message.type in (pb.FILE, pb.DIRECTORY) and message.encrypted
    if is_fake:
        fault = fault_of_name(message.name)
        if fault is not None:
            raise FileInfoRefused(message.name, message.sequence, fault)
    if not is_fake or not is_encrypted_name(message.name):
        raise NotEncrypted(
            "the peer sends file infos that are not encrypted: set an encryption password for this device "
            "in the folder's sharing settings"
        )


def _fault_of_size(size: int, blocks: int) -> str | None:
    cap = constants.MAX_FILE_INFO_SIZE + constants.MAX_FILE_INFO_SIZE_PER_BLOCK * blocks
    return f"a file info of {size} bytes is over the cap of {cap}" if size > cap else None


def _fault_of_kind(message: pb.FileInfo) -> str | None:
    if message.blocks and (message.deleted or message.type != pb.FILE):
        return "blocks in something that is no file"
    return None


def _fault_of_blocks(message: pb.FileInfo, max_blocks: int) -> str | None:
    """Return what is wrong with the blocks of a file.

    The size of anything else means nothing: an untrusted Syncthing 2.0.0 to 2.1.1 announces directories and symlinks
    with a size of 128.
    """
    if message.invalid:
        # Nobody pulls an invalid file, and its size may be negative: a receive-encrypted Syncthing takes the trailer
        # off the 0 of a file that it ignores (v2.1.3 lib/model/indexhandler.go, prepareFileInfoForIndex).
        return None
    if message.size < 0:
        return f"negative size {message.size}"
    if message.deleted or message.type != pb.FILE:
        return None
    if not message.blocks:
        return "a file without blocks"
    if len(message.blocks) > max_blocks:
        return f"{len(message.blocks)} blocks are over the cap of {max_blocks}"
    offset = 0
    for block in message.blocks:
        if block.offset != offset:
            return f"a block at {block.offset} where {offset} is due"
        if not constants.MIN_ENCRYPTED_BLOCK_SIZE <= block.size <= constants.MAX_ENCRYPTED_BLOCK_SIZE:
            return f"a block of {block.size} bytes"
        if len(block.hash) != constants.TOKEN_SIZE:
            return f"a block token of {len(block.hash)} bytes"
        offset += block.size
    return None if offset == message.size else f"the blocks do not add up to the size of {message.size}"
