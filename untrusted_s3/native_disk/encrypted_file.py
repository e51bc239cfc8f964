"""One file of a receive-encrypted folder on disk: encrypted blocks, the file info, and its length in 4 bytes."""

from __future__ import annotations

import os
import stat
import struct
from types import TracebackType
from typing import Final, Self

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import MAX_FILE_BLOCKS, MAX_FILE_INFO_SIZE, MAX_FILE_INFO_SIZE_PER_BLOCK
from untrusted_s3.bep.file_info import FileInfo, check_version, parse_file_info
from untrusted_s3.errors import BlockUnavailable, FileInfoRefused, ProtocolError
from untrusted_s3.store.format import MAX_FILE_SIZE
from untrusted_s3.threads import in_thread_to_the_end
from untrusted_s3.units import KIB

_LENGTH: Final = struct.Struct(">I")
_LARGEST_TRAILER: Final = MAX_FILE_INFO_SIZE + MAX_FILE_INFO_SIZE_PER_BLOCK * MAX_FILE_BLOCKS
# A file up to this size is read at once, with its blocks.
_READ_AT_ONCE: Final = 256 * KIB
_NO_TRAILER: Final = "does not end with the file info of an encrypted file"


class NotImportedError(Exception):
    """A file that is not what an untrusted device has written."""


class EncryptedFile:
    """A file that is open for reading. Use it as a context.

    Attributes:
        file_info: The file info at its end.
    """

    def __init__(self, directory: int, path: str) -> None:
        """Open the file of an encrypted name below an open directory, and read its end.

        Raises NotImportedError if it is no file of an untrusted device, and OSError.
        """
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotImportedError("not a file")
            self._size = status.st_size
            self._end = self._read(max(self._size - _READ_AT_ONCE, 0), self._size)
            self.file_info = self._parse(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _parse(self, path: str) -> FileInfo:
        if len(self._end) < _LENGTH.size:
            raise NotImportedError(_NO_TRAILER)
        (length,) = _LENGTH.unpack_from(self._end, len(self._end) - _LENGTH.size)
        trailer = length + _LENGTH.size
        if not 0 < length <= _LARGEST_TRAILER or trailer > self._size:
            raise NotImportedError(_NO_TRAILER)
        end = self._end if trailer <= len(self._end) else self._read(self._size - trailer, self._size)
        raw = bytes(end[len(end) - trailer : len(end) - _LENGTH.size])
        try:
            info = parse_file_info(raw)
            check_version(info)
        except FileInfoRefused as error:
            raise NotImportedError(f"its file info is refused: {error.reason}") from error
        except ProtocolError as error:
            raise NotImportedError(_NO_TRAILER) from error
        if info.name != path:
            raise NotImportedError(f"its file info is that of another file, {info.name[:100]!r}")
        if not info.has_data:
            raise NotImportedError("its file info says that there is no file")
        if info.message.size > MAX_FILE_SIZE:
            raise NotImportedError(f"{info.message.size} bytes are more than an object can hold")
        # An old device may count trailers into the size: then what lies between blocks and file info is of no use.
        data_end = self._size - trailer
        if data_end != info.message.size and data_end != pb.FileInfo.FromString(raw).size:
            raise NotImportedError(f"it has {data_end} bytes of blocks, and its file info says {info.message.size}")
        return info

    async def fetch_block(self, number: int, block: pb.BlockInfo) -> memoryview:
        """Return the bytes of a block (`objects.assembly.FetchBlock`). Raises BlockUnavailable."""
        start, end = block.offset, block.offset + block.size
        first = self._size - len(self._end)
        if start >= first:
            return memoryview(self._end)[start - first : end - first]
        try:
            return memoryview(await in_thread_to_the_end(self._read, start, end))
        except (OSError, NotImportedError) as error:
            raise BlockUnavailable(f"block {number} cannot be read: {error}") from error

    def _read(self, start: int, end: int) -> bytes:
        pieces = []
        while start < end:
            piece = os.pread(self._descriptor, end - start, start)
            if not piece:
                raise NotImportedError("it has become shorter meanwhile")
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
